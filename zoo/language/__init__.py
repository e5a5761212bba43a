"""Language models and vision-language models that answer in words."""
