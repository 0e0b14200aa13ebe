"""What a run did, step by step, written down while it runs: recorded, replayed, and compared with another run.

    with Recorder("runs/a") as recorder:          any loop
        recorder.step(loss=loss, gradients=gradients, params=params)
    recorder = record_torch(optimizer, "runs/b", model=model)   PyTorch
    tx = recorded(tx, "runs/c")                                 optax

`optparity diff` compares two traces, `optparity replay` asks whether it is the optimizer.
"""
