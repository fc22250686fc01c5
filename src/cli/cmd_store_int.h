/* What the files of `pharos store` share. */
#ifndef PHAROS_CLI_CMD_STORE_INT_H
#define PHAROS_CLI_CMD_STORE_INT_H

#include "cli/cli_int.h"
#include "memory/store.h"

/* Every subcommand's arguments begin with these. */
struct cli_store_args {
    const char *data, *store;
    bool json;
};

#define CLI_STORE_OPTION_DATA                                                             \
    {                                                                                     \
        CLI_OPTION("--data", "DIR", CLI_TEXT, struct cli_store_args, data, CLI_DATA_HELP) \
    }
#define CLI_STORE_OPTION_STORE                                               \
    {                                                                        \
        CLI_OPTION("--store", "URL", CLI_TEXT, struct cli_store_args, store, \
                   "postgres://... (the store in the station's data)")       \
    }
#define CLI_STORE_OPTION_JSON                                                                           \
    {                                                                                                   \
        CLI_OPTION("--json", NULL, CLI_SWITCH, struct cli_store_args, json, "print the result as JSON") \
    }

enum cli_store_mode { CLI_STORE_MAKE, CLI_STORE_WRITE, CLI_STORE_READ };

/* The store in the data directory, as a station there has it, or the one that --store names; beside a running
 * station. MAKE: made if absent. */
PH_MUST_USE enum ph_status cli_store_open(const struct cli_store_args *args, enum cli_store_mode mode,
                                          struct store **out, struct ph_err *err);

#define CLI_VECTORS_DIR CLI_MEMORY_DIR "/vectors" /* in the data directory */
#define CLI_WORDS_FILE "words"                    /* in CLI_MEMORY_DIR: statistics of the lexical embedding */
/* What of a deleted user lies beside the store: vectors, and statistics that knew his words. */
PH_MUST_USE enum ph_status cli_store_forget(const char *data, struct store *store, int64_t user,
                                            struct ph_err *err);

int cmd_store_import(int argc, char **argv);
int cmd_store_index(int argc, char **argv);
int cmd_store_find(int argc, char **argv);
int cmd_store_export(int argc, char **argv);

#endif
