"""What every training run needs besides its model, data and optimizer; `detrex.engine` reads it.

Override any of it on the command line, e.g. `train.output_dir=/tmp/run train.device=cpu`: whatever
depends on a value refers to it here.
"""

import torch

train = dict(
    output_dir="./output",
    # A detector's checkpoint or a bare backbone's file; empty starts from the initial weights.
    init_checkpoint="",
    max_iter=90000,
    amp=dict(enabled=False, dtype="float16"),
    # Batches to an optimizer step, which takes the mean of their gradients; an iteration is a step.
    accumulate_steps=1,
    ddp=dict(broadcast_buffers=False, find_unused_parameters=False, fp16_compression=False),
    # For models that do not fit on one card: each process keeps a part of the weights, of their
    # gradients and of the optimizer's state. Checkpoints are folders, written in the background.
    fsdp=dict(enabled=False, reshard_after_forward=True, async_checkpoint=True),
    clip_grad=dict(enabled=False, params=dict(max_norm=0.1, norm_type=2)),
    # Negative draws a seed, which the checkpoint then keeps.
    seed=-1,
    # 20 iterations with an evaluation after 10, to see whether everything fits together.
    fast_dev_run=dict(enabled=False),
    checkpointer=dict(period=5000, max_to_keep=100),
    # Seconds to wait for other processes and for a batch of the loader's workers, 0 for ever; and
    # of silence (above 0) after which a run on another machine no longer has output_dir for itself.
    timeouts=dict(collective=1800, data=600, lock=300),
    eval_period=5000,
    log_period=20,
    wandb=dict(
        enabled=False,
        params=dict(dir="./wandb_output", project="detrex", name="detrex_experiment"),
    ),
    # An empty device keeps the averaged weights where the model is.
    model_ema=dict(enabled=False, decay=0.999, device="", use_ema_weights_for_eval_only=False),
    # report.html in output_dir at the end: curves, AP by class, the worst pictures, times.
    report=dict(enabled=True, pictures=12),
    # Evaluate a faster copy; a dtype of None is that of amp where it is enabled.
    inference=dict(enabled=False, dtype=None, channels_last=True, fold_norms=True, compile=False),
    # rows, triton, ...; None leaves it to DETREX_DEFORMABLE_ATTENTION_KERNEL, or "auto".
    deformable_attention_kernel=None,
    device="cuda" if torch.cuda.is_available() else "cpu",
)
