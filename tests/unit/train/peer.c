#include "train/peer.h"

#include "test_support.h"

#define SCRIPT "tests/unit/train/peer_torch.py"

static bool has_torch(const char *python)
{
    char command[400];
    snprintf(command, sizeof command,
             "'%s' -c 'from importlib.util import find_spec as f; exit(not (f(\"torch\") and f(\"numpy\")))' "
             ">/dev/null 2>&1",
             python); /* importing torch takes seconds */
    return system(command) == 0;
}

bool peer_open(struct peer *peer)
{
    const char *told = getenv("PHAROS_PEER_PYTHON");
    const char *const places[] = {told ? told : "python3", told ? told : "/usr/bin/python3"};
    *peer = (struct peer){.folder = "/tmp/pharos-peer-XXXXXX"};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (!peer->python[0] && has_torch(places[i]))
            snprintf(peer->python, sizeof peer->python, "%s", places[i]);
    if (!peer->python[0]) {
        printf("SKIP: comparison with PyTorch: no python3 here has torch (PHAROS_PEER_PYTHON names one)\n");
        return false;
    }
    assert_non_null(mkdtemp(peer->folder));
    char path[64];
    snprintf(path, sizeof path, "%s/manifest", peer->folder);
    peer->manifest = fopen(path, "w");
    assert_non_null(peer->manifest);
    return true;
}

static FILE *open_array(const struct peer *peer, const char *name, const char *mode)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", peer->folder, name);
    FILE *file = fopen(path, mode);
    if (!file)
        fail_msg("%s does not open", path);
    return file;
}

void peer_put(struct peer *peer, const char *name, const void *bytes, size_t len)
{
    FILE *file = open_array(peer, name, "wb");
    assert_int_equal(fwrite(bytes, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
}

void peer_run(struct peer *peer, const char *what)
{
    char command[512];
    assert_int_equal(fclose(peer->manifest), 0);
    peer->manifest = NULL;
    snprintf(command, sizeof command, "'%s' " SCRIPT " %s %s 2>&1", peer->python, what, peer->folder);
    if (system(command) != 0)
        fail_msg("failed: %s", command);
}

void peer_get(struct peer *peer, const char *name, void *bytes, size_t len)
{
    FILE *file = open_array(peer, name, "rb");
    assert_int_equal(fread(bytes, 1, len, file), len);
    assert_int_equal(fgetc(file), EOF);
    fclose(file);
}

void peer_close(struct peer *peer)
{
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", peer->folder);
    assert_int_equal(system(command), 0);
}
