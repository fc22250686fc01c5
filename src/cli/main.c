/* pharos: the command line. One table of commands; each is a file of its own. */
#include "cli/cli_int.h"

static const struct cli_command commands[] = {
    {"serve", "run the station: OpenAI and Anthropic APIs over local models", cmd_serve},
    {"chat", "talk in the terminal", cmd_chat},
    {"complete", "continue a prompt with a model", cmd_complete},
    {"tokenize", "text to token ids, line by line", cmd_tokenize},
    {"detokenize", "token ids to text, line by line", cmd_detokenize},
    {"template", "a conversation to the exact prompt a model sees", cmd_template},
    {"logits", "logits after a prompt of token ids, to a file", cmd_logits},
    {"perplexity", "how well a model predicts a text", cmd_perplexity},
    {"bench", "measure speed beside the machine's limits", cmd_bench},
    {NULL, NULL, NULL},
};

int main(int argc, char **argv)
{
    int exit_code = cli_dispatch("pharos", "Pharos, a self-hosted AI station.", commands, argc, argv);
    /* A full disk or a closed pipe shows only here. */
    if (fflush(stdout) != 0 || ferror(stdout))
        return cli_error(CLI_EXIT_FAILURE, "standard output could not be written; is the disk full?");
    return exit_code;
}
