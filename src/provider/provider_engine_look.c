/* A look at a running engine: how much memory its processes have, and whether its log has become too long.
 * Both read and write files, some of them large, so a helper thread does it. */
#include "base/mem.h"
#include "provider/provider_engine_int.h"

struct engine_look {
    const struct engine_files *files;
    int group;
    struct engine_look_sink sink;
    bool found;
    struct process_memory memory;
};

static void look_work(void *ud) /* helper thread */
{
    struct engine_look *look = ud;
    look->found = process_group_memory(look->group, &look->memory);
    engine_files_bound_log(look->files, SUPERVISED_LOG_BYTES_MAX);
}

static void look_done(void *ud)
{
    struct engine_look look = *(struct engine_look *)ud;
    mem_free(ud);
    look.sink.seen(look.sink.ud, look.found ? &look.memory : NULL);
}

struct engine_look *engine_look_start(struct net_loop *loop, const struct engine_files *files, int group,
                                      const struct engine_look_sink *sink)
{
    struct engine_look *look = mem_alloc(sizeof *look);
    if (!look)
        return NULL;
    *look = (struct engine_look){.files = files, .group = group, .sink = *sink};
    if (net_work(loop, look_work, look_done, look) == PH_OK)
        return look;
    mem_free(look);
    return NULL;
}
