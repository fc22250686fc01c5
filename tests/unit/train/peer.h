/* PyTorch as an oracle: arrays go through files in a folder of their own, peer_torch.py computes, results come
 * back the same way. Nothing here is needed to pass: where no Python with torch is, the test is skipped. */
#ifndef PHAROS_TESTS_TRAIN_PEER_H
#define PHAROS_TESTS_TRAIN_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct peer {
    char python[256], folder[32];
    FILE *manifest; /* "key value" lines; a case ends with an empty line */
};

/* False where PHAROS_PEER_PYTHON, python3 and /usr/bin/python3 all lack torch; says so. */
bool peer_open(struct peer *peer);
void peer_put(struct peer *peer, const char *name, const void *bytes, size_t len);
void peer_run(struct peer *peer, const char *what); /* fails the test when the script does */
void peer_get(struct peer *peer, const char *name, void *bytes, size_t len);
void peer_close(struct peer *peer);

#endif
