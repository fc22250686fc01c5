/* net, private: intrusive circular lists. A link that points at itself is in none. */
#ifndef PHAROS_NET_HTTP_LINK_INT_H
#define PHAROS_NET_HTTP_LINK_INT_H

#include <stdbool.h>
#include <stddef.h>

struct http_link {
    struct http_link *next, *prev;
};

#define HTTP_CONTAINER(link, type, member) ((type *)(void *)((char *)(link)-offsetof(type, member)))

static inline void http_link_init(struct http_link *link)
{
    link->next = link->prev = link;
}

static inline bool http_link_is_alone(const struct http_link *link)
{
    return link->next == link;
}

static inline void http_link_remove(struct http_link *link)
{
    link->prev->next = link->next;
    link->next->prev = link->prev;
    http_link_init(link);
}

static inline void http_link_append(struct http_link *list, struct http_link *link)
{
    link->prev = list->prev;
    link->next = list;
    list->prev->next = link;
    list->prev = link;
}

#endif
