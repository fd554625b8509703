wc -l < inputs/rows/rows.jsonl
