/* pharos: the command line. One table of commands; each is a file of its own. */
#include "base/process.h"
#include "cli/cli_int.h"

static const struct cli_command commands[] = {
    {"serve", "run the station: OpenAI and Anthropic APIs over local models", cmd_serve},
    {"health", "whether a running station can answer", cmd_health},
    {"chat", "talk in the terminal", cmd_chat},
    {"complete", "continue a prompt with a model", cmd_complete},
    {"tokenize", "text to token ids, line by line", cmd_tokenize},
    {"detokenize", "token ids to text, line by line", cmd_detokenize},
    {"template", "a conversation to the exact prompt a model sees", cmd_template},
    {"logits", "logits after a prompt of token ids, to a file", cmd_logits},
    {"perplexity", "how well a model predicts a text", cmd_perplexity},
    {"embed", "lines of text to vectors, with an embedding model", cmd_embed},
    {"quantize", "a model file in smaller number formats", cmd_quantize},
    {"context", "what of a conversation a model would get to see for a question", cmd_context},
    {"keys", "who may call the station: create, ls, revoke, rotate", cmd_keys},
    {"train", "learn tokenizers and models from your own data", cmd_train},
    {"route", "how routes choose: ls, calibrate a cascade from verdicts", cmd_route},
    {"store", "what the station remembers: import, export, index, find, stat, verify, rm-user", cmd_store},
    {"cost", "what the station's traffic costs", cmd_cost},
    {"backup", "snapshots of the station on another disk: create, ls, verify, restore, prune", cmd_backup},
    {"drill", "let a running station meet every fault of its providers", cmd_drill},
    {"monitor", "watch the machine's heat", cmd_monitor},
    {"estimate", "memory and speed of a model on a machine; what others claim of it", cmd_estimate},
    {"doctor", "look over a station: what is wrong, and what to do", cmd_doctor},
    {"bench", "measure speed beside the machine's limits", cmd_bench},
    {"man", "write the manual pages", cmd_man},
    {"completion", "complete commands and options in bash, zsh or fish", cmd_completion},
    {NULL, NULL, NULL},
};

int cli_main(int argc, char **argv)
{
    return cli_dispatch("pharos", "Pharos, a self-hosted AI station.", commands, argc, argv);
}

int main(int argc, char **argv)
{
    struct ph_err err;
    process_keep_on_bad_writes();
    int exit_code = cli_main(argc, argv);
    /* Who printed at the end only has left it to us to see whether that arrived; who failed has said so. */
    return exit_code == CLI_EXIT_OK && cli_sent(&err) != PH_OK ? cli_fail(&err) : exit_code;
}
