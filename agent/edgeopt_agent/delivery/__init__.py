"""Getting a bundle onto the device, block by block, over MQTT or HTTP, at the device's own pace."""
