"""The peer of `speed.rs`: the same steps in PyTorch, the same generation in transformers.

Needs torch and transformers. Takes the number of threads, prints a name, a tab and seconds.
"""

import os
import statistics
import sys
import time

os.environ.update(HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES="", TOKENIZERS_PARALLELISM="false")

import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

torch.set_num_threads(int(sys.argv[1]))
torch.manual_seed(0)

CONFIG = LlamaConfig(
    vocab_size=512,
    hidden_size=256,
    intermediate_size=688,
    num_hidden_layers=4,
    num_attention_heads=8,
    num_key_value_heads=8,
    max_position_embeddings=1024,
    tie_word_embeddings=False,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)


def tell(name, once, runs=9, warm=3):
    seconds = []
    for run in range(runs + warm):
        begin = time.perf_counter()
        once()
        if run >= warm:
            seconds.append(time.perf_counter() - begin)
    print(f"{name}\t{statistics.median(seconds)}", flush=True)


def training():
    model = LlamaForCausalLM(CONFIG).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.0)
    ids = torch.randint(3, 503, (8, 257))

    def logps():
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits
        return torch.gather(F.log_softmax(logits, -1), 2, ids[:, 1:, None])[..., 0]

    def step(loss):
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    def sft():
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits
        return F.cross_entropy(logits.reshape(-1, 512), ids[:, 1:].reshape(-1))

    def cpo():
        found = logps()
        chosen, rejected = found[:4].sum(1), found[4:].sum(1)
        return -F.logsigmoid(0.1 * (chosen - rejected)).mean() - found[:4].mean()

    tell("training step", lambda: step(sft))
    tell("CPO step", lambda: step(cpo))


def generation(name, model, length):
    model.eval()
    ids = torch.randint(3, 503, (8, 32))
    mask = torch.ones_like(ids)

    def once():
        with torch.inference_mode():
            model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=length,
                min_new_tokens=length,
                do_sample=False,
                use_cache=True,
                pad_token_id=0,
            )

    tell(name, once)


T5_SMALL = T5Config(
    vocab_size=32128,
    d_model=512,
    d_kv=64,
    d_ff=2048,
    num_layers=6,
    num_heads=8,
    decoder_start_token_id=0,
)

training()
generation("generation", LlamaForCausalLM(CONFIG), 128)
generation("T5-small generation", T5ForConditionalGeneration(T5_SMALL), 64)
