"Parity with published code: `python -m tests.parity METHOD FOLDER` compares this library with the golden tensors in a folder."
