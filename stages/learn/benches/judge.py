"""The peer of `judge.rs`: the same shape in transformers.

Needs torch and transformers. Takes the number of threads and a model folder, prints seconds.
"""

import os
import sys
import time

os.environ.update(HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES="", TOKENIZERS_PARALLELISM="false")

import torch
from transformers import AutoModelForSequenceClassification

torch.set_num_threads(int(sys.argv[1]))
model = AutoModelForSequenceClassification.from_pretrained(sys.argv[2]).eval()
ids = torch.randint(10, 900, (16, 64))
seconds = []
with torch.inference_mode():
    for _ in range(7):
        begin = time.perf_counter()
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
        seconds.append(time.perf_counter() - begin)
print(min(seconds))
