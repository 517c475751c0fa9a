"""Reading labelled samples from what people have on disk: folders of pictures and sounds, tables, token ids."""
