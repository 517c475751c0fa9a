"""The life of an update: deciding, saving, acting, and the slots it ends in."""
