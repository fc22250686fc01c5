#include "cli/cli_int.h"

static const struct cli_command commands[] = {
    {"tokenizer", "learn a vocabulary from text", cmd_train_tokenizer},
    {"data", "texts and conversations to a token file", cmd_train_data},
    {"lm", "a language model, from token files to GGUF", cmd_train_lm},
    {"prune", "a smaller model of what matters in one", cmd_train_prune},
    {"ngram", "an n-gram model, the baseline of language models", cmd_train_ngram},
    {"spt", "the selector of what a context is made of", cmd_train_spt},
    {"lab", "what each number format costs a model, and the smallest within a loss", cmd_train_lab},
    {NULL, NULL, NULL},
};

int cmd_train(int argc, char **argv)
{
    return cli_dispatch("pharos train", "Learns tokenizers and models from your own data.", commands, argc,
                        argv);
}
