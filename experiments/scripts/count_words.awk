# Counts the whitespace-separated words of the `caption` field of JSONL rows.
# Mean and population standard deviation, by Welford's update.
{
    if (!match($0, /"caption":"([^"\\]|\\.)*"/)) next
    text = substr($0, RSTART + 11, RLENGTH - 12)
    words = split(text, parts, /[ \t]+/)
    if (parts[1] == "") words--
    if (words > 0 && parts[words + (parts[1] == "")] == "") words--
    n++
    delta = words - mean
    mean += delta / n
    squares += delta * (words - mean)
}
END {
    if (n == 0) exit 1
    printf "{\"words_mean\": %.12g, \"words_std\": %.12g, \"words_rows\": %d}\n", mean, sqrt(squares / n), n
}
