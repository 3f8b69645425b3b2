"""The bare script that `benchmarks.startup` compares with: one step of a small GPT-2 under DeepSpeed ZeRO-3."""

from __future__ import annotations

import os

from benchmarks.startup import make_mark


def main() -> None:
    make_mark("process")
    import datasets  # noqa: F401 - what such a script reads its data with
    import deepspeed
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    make_mark("imports")
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # it would be compiled, for over a minute
    deepspeed.init_distributed("gloo", verbose=False)
    make_mark("met")
    keys = {
        "train_micro_batch_size_per_gpu": 2,
        "gradient_clipping": 1.0,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": {"stage": 3, "reduce_bucket_size": 5_000_000},
    }
    with deepspeed.zero.Init(config_dict_or_path=keys):
        model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=16, n_head=1, n_positions=32, vocab_size=420))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=keys)
    make_mark("engine")
    tokens = torch.randint(420, (2, 32))
    loss = engine(input_ids=tokens, labels=tokens).loss
    engine.backward(loss)
    engine.step()
    loss.item()
    make_mark("step")
    os._exit(0)  # what is measured has ended, and threads of the libraries abort a plain exit now and then


if __name__ == "__main__":
    main()
