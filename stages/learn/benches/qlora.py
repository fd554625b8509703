"""The step of `pipeline bench qlora` by PEFT and bitsandbytes, on the same shapes: needs torch, transformers, peft, bitsandbytes and a GPU.

    python qlora.py 7b --batch 4 --tokens 512 --steps 5 --rank 64

With `--dense` projections stay in bf16, which is LoRA in place of QLoRA and needs no bitsandbytes.

Weights are random; gradients are checkpointed layer by layer, products are in bf16, AdamW is torch's, as in ours.
"""
import argparse
import json
import statistics
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

SHAPES = {
    "tiny": (128, 352, 4, 4, 4, 1000, 512),
    "small": (512, 1408, 8, 8, 8, 8000, 1024),
    "1b": (2048, 5632, 22, 32, 4, 32000, 2048),
    "7b": (4096, 11008, 32, 32, 32, 32000, 4096),
}

arguments = argparse.ArgumentParser()
arguments.add_argument("shape", choices=SHAPES)
arguments.add_argument("--batch", type=int, default=4)
arguments.add_argument("--tokens", type=int, default=512)
arguments.add_argument("--steps", type=int, default=5)
arguments.add_argument("--rank", type=int, default=64)
arguments.add_argument("--dense", action="store_true")
asked = arguments.parse_args()
if not asked.dense:
    import bitsandbytes as bnb

hidden, wide, layers, heads, keys, vocabulary, positions = SHAPES[asked.shape]
config = LlamaConfig(
    hidden_size=hidden, intermediate_size=wide, num_hidden_layers=layers, num_attention_heads=heads,
    num_key_value_heads=keys, vocab_size=vocabulary, max_position_embeddings=positions,
    rms_norm_eps=1e-5, tie_word_embeddings=False, use_cache=False,
)
torch.manual_seed(0)


def pack(module):
    """Puts projections in four bits in place of dense ones, each packed as it comes to the GPU."""
    for name, child in module.named_children():
        if isinstance(child, torch.nn.Linear):
            packed = bnb.nn.Linear4bit(
                child.in_features, child.out_features, bias=False, compute_dtype=torch.bfloat16,
                compress_statistics=True, quant_type="nf4",
            )
            packed.weight = bnb.nn.Params4bit(
                child.weight.data.float(), requires_grad=False, quant_type="nf4", compress_statistics=True
            )
            setattr(module, name, packed.to("cuda"))
        else:
            pack(child)


torch.set_default_dtype(torch.bfloat16)
model = LlamaForCausalLM(config)
torch.set_default_dtype(torch.float32)
if not asked.dense:
    pack(model.model)
model = model.to("cuda")
model.enable_input_require_grads()
model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
lora = LoraConfig(r=asked.rank, lora_alpha=16, lora_dropout=0.1, target_modules=targets, task_type="CAUSAL_LM")
model = get_peft_model(model, lora)
learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
optimizer = torch.optim.AdamW(learning, lr=1e-4, weight_decay=0.0)
ids = torch.randint(2, min(vocabulary, 15), (asked.batch, asked.tokens), device="cuda")
model.train()
seconds = []
for step in range(asked.steps + 2):
    torch.cuda.synchronize()
    begun = time.perf_counter()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(learning, 0.3)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    torch.cuda.synchronize()
    if step >= 2:
        seconds.append(time.perf_counter() - begun)
step_seconds = statistics.median(seconds)

a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
for _ in range(2):
    a @ a.T
torch.cuda.synchronize()
begun = time.perf_counter()
for _ in range(8):
    a @ a.T
torch.cuda.synchronize()
limit = 2 * 8192**3 * 8 / (time.perf_counter() - begun)
print(json.dumps({
    "gpu": torch.cuda.get_device_name(),
    "torch": torch.__version__,
    "bitsandbytes": None if asked.dense else bnb.__version__,
    "learning": sum(parameter.numel() for parameter in learning),
    "step_seconds": step_seconds,
    "tokens_per_second": asked.batch * asked.tokens / step_seconds,
    "device_peak_bytes": torch.cuda.max_memory_reserved(),
    "limit_operations_per_second": limit,
    "loss": loss.item(),
}, indent=1))
