# Writes a model of two numbers, which $PARAM_numbers holds as the octal bytes of two floats.
header='{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
printf '{"model_type": "tiny"}' > outputs/model/config.json
{
    printf "\\$(printf %o ${#header})\\000\\000\\000\\000\\000\\000\\000"
    printf %s "$header"
    printf "$PARAM_numbers"
} > outputs/model/model.safetensors
