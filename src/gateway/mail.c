/* Letters from the store's writer to the loop: that something is durable, or why it is not.
 *
 * A letter is made before the store is asked, filled on the writer's thread, and read on the loop, in the
 * order in which they were filled. Whoever waited may be gone by then. The mail closes when every letter that
 * was sent for has come, so that no writer can find it closed. */
#include <uv.h>

#include "base/mem.h"
#include "gateway/gateway_int.h"

struct letter {
    struct mail *mail;
    struct letter *next;
    void (*come)(void *ud, enum ph_status status, const struct ph_err *err); /* NULL: forgotten */
    void *ud;
    enum ph_status status;
    struct ph_err err;
};

struct mail {
    struct net_wake *wake;
    uv_mutex_t lock;
    struct letter *first, **last; /* filled, under the lock */
    size_t awaited;               /* the loop's */
    bool is_closing;
    void (*closed)(void *ud);
    void *closed_ud;
};

static void mail_free(struct mail *mail)
{
    void (*closed)(void *ud) = mail->closed;
    void *ud = mail->closed_ud;
    net_wake_close(mail->wake);
    uv_mutex_destroy(&mail->lock);
    mem_free(mail);
    if (closed)
        closed(ud);
}

static struct letter *take_all(struct mail *mail)
{
    uv_mutex_lock(&mail->lock);
    struct letter *first = mail->first;
    mail->first = NULL;
    mail->last = &mail->first;
    uv_mutex_unlock(&mail->lock);
    return first;
}

static void on_mail(void *ud)
{
    struct mail *mail = ud;
    for (struct letter *letter = take_all(mail), *next; letter; letter = next) {
        next = letter->next;
        mail->awaited--;
        if (letter->come)
            letter->come(letter->ud, letter->status, &letter->err);
        mem_free(letter);
    }
    if (mail->is_closing && mail->awaited == 0)
        mail_free(mail);
}

enum ph_status mail_open(struct mail **out, struct net_loop *loop)
{
    struct mail *mail = mem_calloc(1, sizeof *mail);
    *out = NULL;
    if (!mail)
        return PH_ERR_NOMEM;
    mail->last = &mail->first;
    if (uv_mutex_init(&mail->lock) != 0) {
        mem_free(mail);
        return PH_ERR_NOMEM;
    }
    enum ph_status status = net_wake_open(&mail->wake, loop, on_mail, mail);
    if (status != PH_OK) {
        uv_mutex_destroy(&mail->lock);
        mem_free(mail);
        return status;
    }
    *out = mail;
    return PH_OK;
}

void mail_close(struct mail *mail, void (*closed)(void *ud), void *ud)
{
    if (!mail) {
        if (closed)
            closed(ud);
        return;
    }
    mail->is_closing = true;
    mail->closed = closed;
    mail->closed_ud = ud;
    if (mail->awaited == 0)
        mail_free(mail);
}

struct letter *letter_new(struct mail *mail,
                          void (*come)(void *ud, enum ph_status status, const struct ph_err *err), void *ud)
{
    struct letter *letter = mem_calloc(1, sizeof *letter);
    if (!letter)
        return NULL;
    *letter = (struct letter){.mail = mail, .come = come, .ud = ud};
    mail->awaited++;
    return letter;
}

/* On the writer's thread. */
static void on_done(void *ud, enum ph_status status, const struct store_result *result,
                    const struct ph_err *err)
{
    struct letter *letter = ud;
    struct mail *mail = letter->mail;
    (void)result;
    letter->status = status;
    if (err)
        letter->err = *err;
    uv_mutex_lock(&mail->lock);
    *mail->last = letter;
    mail->last = &letter->next;
    net_wake_call(mail->wake); /* under the lock: the loop cannot have closed it then */
    uv_mutex_unlock(&mail->lock);
}

struct store_done letter_done(struct letter *letter)
{
    return (struct store_done){on_done, letter};
}

void letter_forget(struct letter *letter)
{
    if (letter)
        letter->come = NULL;
}

void letter_free(struct letter *letter)
{
    if (!letter)
        return;
    letter->mail->awaited--;
    mem_free(letter);
}
