# Writes the last two floats of a model as a row.
tail -c 8 inputs/model/model.safetensors | od -An -t f4 |
    awk '{ print "{\"id\": \"w\", \"numbers\": [" $1 ", " $2 "]}" }' > outputs/rows/rows.jsonl
