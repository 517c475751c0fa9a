"""The runtimes that run a variant, behind one port: ONNX Runtime, OpenVINO and LiteRT on this machine's CPU."""
