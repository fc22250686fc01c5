/* pharos train spt: the context selector, from conversations with and without questions. */
#include <stdio.h>

#include "cli/cli_int.h"
#include "memory/spt.h"

struct args {
    struct cli_list texts, cases;
    const char *teacher, *words_of, *skip, *out;
    size_t words, questions, made_up, epochs, set_epochs, seed;
};

static const struct cli_option options[] = {
    {CLI_OPTION("--cases", "F.jsonl", CLI_LIST, struct args, cases,
                "conversations, with questions and their evidence or without; one file or several"),
     .required = true},
    {CLI_OPTION("--out", "F.gguf", CLI_TEXT, struct args, out, "the selector"), .required = true},
    {CLI_OPTION("--text", "F.txt", CLI_LIST, struct args, texts,
                "plain text that word vectors are learned from, beside the cases' messages")},
    {CLI_OPTION("--teacher", "F.gguf", CLI_TEXT, struct args, teacher,
                "an embedding model whose meanings the word vectors learn (minutes)")},
    {CLI_OPTION("--words-of", "F.gguf", CLI_TEXT, struct args, words_of,
                "keep the word vectors of this selector instead of learning them")},
    {CLI_OPTION("--skip", "NAME", CLI_TEXT, struct args, skip,
                "leave out a source of cases, or one case by its id")},
    {CLI_OPTION("--words", "N", CLI_COUNT, struct args, words, "words with a vector (24000)"), .min = 256,
     .max = 65536},
    {CLI_OPTION("--questions", "N", CLI_COUNT, struct args, questions,
                "questions of one file, spread over it (3000)"),
     .min = 1, .max = 1000000},
    {CLI_OPTION("--made-up", "N", CLI_COUNT, struct args, made_up,
                "questions that are made up for a conversation without any (24)"),
     .min = 1, .max = 10000},
    {CLI_OPTION("--epochs", "N", CLI_COUNT, struct args, epochs, "passes over all questions (20)"), .min = 1,
     .max = 1000},
    {CLI_OPTION("--set-epochs", "N", CLI_COUNT, struct args, set_epochs,
                "passes of the set transformer, which looks at all candidates together (3); 0: none"),
     .min = 0, .max = 1000},
    {CLI_OPTION("--seed", "N", CLI_COUNT, struct args, seed, "of whatever is left to chance (1)"), .min = 0,
     .max = 1e15},
    CLI_OPTIONS_END,
};
static const struct cli_usage usage = {
    "train spt", "--cases F.jsonl... --out F.gguf [options]",
    "Learns word vectors and the ranker that chooses what a context is made of. docs/MEMORY.md has the\n"
    "format of cases; scripts/spt-data makes some of open data; make spt is the shipped selector's recipe.",
    options};

static void show(void *ud, const char *text)
{
    (void)ud;
    puts(text);
    fflush(stdout);
}

int cmd_train_spt(int argc, char **argv)
{
    struct args args = {.set_epochs = 3, .seed = 1};
    int exit_code;
    if (!cli_parse(&usage, argc, argv, &args, &exit_code))
        return exit_code;
    struct ph_err err;
    enum ph_status status = spt_train(&(struct spt_training){.texts = args.texts.items,
                                                             .text_count = args.texts.count,
                                                             .cases = args.cases.items,
                                                             .case_count = args.cases.count,
                                                             .teacher = args.teacher,
                                                             .words_of = args.words_of,
                                                             .skip = args.skip,
                                                             .out = args.out,
                                                             .words_max = args.words,
                                                             .questions_max = args.questions,
                                                             .made_up = args.made_up,
                                                             .epochs = args.epochs,
                                                             .set_epochs = args.set_epochs,
                                                             .seed = args.seed,
                                                             .note = show},
                                      &err);
    return status == PH_OK ? CLI_EXIT_OK : cli_fail(&err);
}
