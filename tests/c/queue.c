/*
 * A host with a batch queue: threads that submit, callbacks that call back, frees at any time. Every
 * request is told one end, every user_data is given back once, and texts are those of sessions.
 */
#define _GNU_SOURCE
#include "check.h"

#include <lightgpt.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TOKENS = 12, EACH = 8, THREADS = 3, TEXT_MAX = 4096 };
static const char *const prompts[] = {"Once upon a time", "The little dog", "One day, a bird"};
enum { PROMPTS = sizeof prompts / sizeof prompts[0] };
static char expected[PROMPTS][TEXT_MAX];

static lightgpt_model *model;

static void append(char *text, const char *bytes, uint64_t len)
{
    CHECK(strlen(text) + len < TEXT_MAX);
    if (len > 0)
        strncat(text, bytes, (size_t)len);
}

static int32_t on_event(void *text, const lightgpt_event *event)
{
    append(text, event->text, event->text_bytes);
    return LIGHTGPT_CONTINUE;
}

static lightgpt_generate_options options(void)
{
    lightgpt_generate_options generate = LIGHTGPT_GENERATE_OPTIONS_INIT;
    generate.tokens_max = TOKENS;
    generate.flags = LIGHTGPT_GENERATE_IGNORE_END;
    return generate;
}

static void make_expected(void)
{
    lightgpt_generate_options generate = options();
    for (int i = 0; i < PROMPTS; i++) {
        lightgpt_session *session = NULL;
        CHECK(lightgpt_session_new(model, NULL, NULL, &session) == LIGHTGPT_OK);
        CHECK(lightgpt_session_feed_text(session, prompts[i], strlen(prompts[i]),
                                         LIGHTGPT_TEXT_ADD_SPECIAL, NULL)
              == LIGHTGPT_OK);
        CHECK(lightgpt_session_generate(session, &generate, on_event, expected[i])
              == LIGHTGPT_DONE);
        CHECK(lightgpt_session_free(session) == LIGHTGPT_OK);
    }
}

static lightgpt_batch_queue *open_queue(uint32_t flags, uint64_t requests_max)
{
    lightgpt_batch_queue *queue = NULL;
    lightgpt_batch_queue_options given = LIGHTGPT_BATCH_QUEUE_OPTIONS_INIT;
    given.flags = flags;
    given.requests_max = requests_max;
    CHECK(lightgpt_batch_queue_new(model, NULL, &given, &queue) == LIGHTGPT_OK);
    return queue;
}

/* What a request is told. */
struct heard {
    lightgpt_batch_queue *queue;
    char text[TEXT_MAX];
    int tokens, ends, destroyed;
    int32_t status;
    uint32_t finish;
    int32_t (*act)(struct heard *heard, const lightgpt_batch_event *event);
};

static int32_t hear(void *user_data, const lightgpt_batch_event *event)
{
    struct heard *heard = user_data;
    CHECK(heard->ends == 0 && event->struct_size == sizeof *event && event->request > 0);
    append(heard->text, event->text, event->text_bytes);
    heard->tokens += event->kind == LIGHTGPT_EVENT_TOKEN;
    if (event->kind == LIGHTGPT_EVENT_FINISHED) {
        heard->ends++;
        heard->status = event->status;
        heard->finish = event->finish;
        CHECK(event->timings != NULL && event->timings->generated_tokens == (uint64_t)heard->tokens);
        CHECK(event->message != NULL && (event->message[0] == 0) == (event->status > -1
              || event->status == LIGHTGPT_CANCELLED));
    } else {
        CHECK(event->timings == NULL && event->message == NULL && event->status == LIGHTGPT_OK);
    }
    return heard->act != NULL ? heard->act(heard, event) : LIGHTGPT_CONTINUE;
}

static void destroy(void *user_data)
{
    __atomic_add_fetch(&((struct heard *)user_data)->destroyed, 1, __ATOMIC_SEQ_CST);
}

static lightgpt_batch_request request_of(int prompt, const lightgpt_generate_options *generate)
{
    lightgpt_batch_request request = LIGHTGPT_BATCH_REQUEST_INIT;
    request.flags = LIGHTGPT_TEXT_ADD_SPECIAL;
    request.text = prompts[prompt];
    request.text_bytes = strlen(prompts[prompt]);
    request.generate = generate;
    return request;
}

static uint64_t submit(lightgpt_batch_queue *queue, int prompt, struct heard *heard)
{
    lightgpt_generate_options generate = options();
    lightgpt_batch_request request = request_of(prompt, &generate);
    uint64_t id = 0;
    heard->queue = queue;
    request.event = hear;
    request.user_data = heard;
    request.destroy = destroy;
    CHECK(lightgpt_batch_queue_submit(queue, &request, &id) == LIGHTGPT_OK && id > 0);
    return id;
}

static void check_complete(const struct heard *heard, int prompt)
{
    CHECK(heard->ends == 1 && heard->status == LIGHTGPT_DONE);
    CHECK(heard->finish == LIGHTGPT_FINISH_LENGTH && heard->tokens == TOKENS);
    CHECK(strcmp(heard->text, expected[prompt]) == 0);
}

/* --- A worker, and threads that submit --- */

struct submitter {
    lightgpt_batch_queue *queue;
    struct heard heard[EACH];
};

static void *submit_some(void *data)
{
    struct submitter *submitter = data;
    for (int i = 0; i < EACH; i++)
        submit(submitter->queue, i % PROMPTS, &submitter->heard[i]);
    return NULL;
}

static void worker(void)
{
    static struct submitter submitters[THREADS];
    pthread_t threads[THREADS];
    lightgpt_batch_queue *queue = open_queue(LIGHTGPT_BATCH_QUEUE_WORKER, 0);
    lightgpt_batch_metrics metrics = LIGHTGPT_BATCH_METRICS_INIT;
    for (int i = 0; i < THREADS; i++) {
        submitters[i].queue = queue;
        CHECK(pthread_create(&threads[i], NULL, submit_some, &submitters[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    CHECK(lightgpt_batch_queue_step(queue, 1) == LIGHTGPT_BUSY);
    CHECK(lightgpt_batch_queue_drain(queue, UINT64_MAX) == LIGHTGPT_DONE);
    CHECK(lightgpt_batch_queue_metrics(queue, &metrics) == LIGHTGPT_OK);
    CHECK(metrics.submitted == THREADS * EACH && metrics.finished == THREADS * EACH);
    CHECK(metrics.generated_tokens == THREADS * EACH * TOKENS && metrics.busy_us > 0);
    CHECK(lightgpt_batch_queue_free(queue) == LIGHTGPT_OK);
    CHECK(lightgpt_batch_queue_free(queue) == LIGHTGPT_INVALID_HANDLE);
    for (int i = 0; i < THREADS; i++) {
        for (int j = 0; j < EACH; j++) {
            check_complete(&submitters[i].heard[j], j % PROMPTS);
            CHECK(submitters[i].heard[j].destroyed == 1);
        }
    }
}

/* --- Polling, back-pressure, deadlines, cancels --- */

static void polling(void)
{
    lightgpt_batch_queue *queue = open_queue(0, 4);
    lightgpt_generate_options generate = options();
    lightgpt_batch_request request = request_of(0, &generate);
    lightgpt_batch_event event = LIGHTGPT_BATCH_EVENT_INIT;
    char text[TEXT_MAX] = "";
    uint64_t ids[4], refused = 0;
    int ends = 0, tokens = 0;
    int32_t status = LIGHTGPT_OK;
    CHECK(lightgpt_batch_queue_poll(queue, 0, &event) == LIGHTGPT_DONE);
    generate.top_len = 3;
    CHECK(lightgpt_batch_queue_submit(queue, &request, &ids[0]) == LIGHTGPT_OK);
    generate.top_len = 0;
    CHECK(lightgpt_batch_queue_submit(queue, &request, &ids[1]) == LIGHTGPT_OK);
    request.deadline_us = 1;
    CHECK(lightgpt_batch_queue_submit(queue, &request, &ids[2]) == LIGHTGPT_OK);
    request.deadline_us = 0;
    CHECK(lightgpt_batch_queue_submit(queue, &request, &ids[3]) == LIGHTGPT_OK);
    CHECK(lightgpt_batch_queue_submit(queue, &request, &refused) == LIGHTGPT_BUSY);
    CHECK(refused == 0 && lightgpt_batch_queue_cancel(queue, ids[1]) == LIGHTGPT_OK);
    CHECK(lightgpt_batch_queue_poll(queue, 1000, &event) == LIGHTGPT_PENDING);
    usleep(100);
    while (lightgpt_batch_queue_step(queue, 200) == LIGHTGPT_PENDING) {
    }
    while ((status = lightgpt_batch_queue_poll(queue, 0, &event)) == LIGHTGPT_OK) {
        if (event.request == ids[0])
            append(text, event.text, event.text_bytes);
        if (event.kind == LIGHTGPT_EVENT_TOKEN) {
            CHECK(event.top_len == (event.request == ids[0] ? 3 : 0));
            tokens++;
        }
        if (event.kind != LIGHTGPT_EVENT_FINISHED)
            continue;
        ends++;
        CHECK(event.timings->struct_size == sizeof(lightgpt_batch_timings));
        if (event.request == ids[1])
            CHECK(event.status == LIGHTGPT_CANCELLED);
        else if (event.request == ids[2])
            CHECK(event.status == LIGHTGPT_STOPPED && event.finish == LIGHTGPT_FINISH_DEADLINE);
        else
            CHECK(event.status == LIGHTGPT_DONE && event.finish == LIGHTGPT_FINISH_LENGTH);
    }
    CHECK(status == LIGHTGPT_DONE && ends == 4 && tokens == 2 * TOKENS);
    CHECK(strcmp(text, expected[0]) == 0);
    CHECK(lightgpt_batch_queue_cancel(queue, ids[0]) == LIGHTGPT_NOT_FOUND);
    CHECK(lightgpt_batch_queue_free(queue) == LIGHTGPT_OK);
}

/* --- What others have evaluated --- */

/* Tokens that a request need not evaluate, whose prompt is the same each time. */
static uint64_t reused(lightgpt_batch_queue *queue, uint32_t sharing, uint64_t salt)
{
    uint32_t tokens[30];
    lightgpt_generate_options generate = options();
    lightgpt_batch_request request = LIGHTGPT_BATCH_REQUEST_INIT;
    lightgpt_batch_event event = LIGHTGPT_BATCH_EVENT_INIT;
    uint64_t id = 0;
    for (uint32_t i = 0; i < 30; i++)
        tokens[i] = 300 + i * 7;
    request.tokens = tokens;
    request.tokens_len = 30;
    request.generate = &generate;
    request.sharing = sharing;
    request.salt = salt;
    CHECK(lightgpt_batch_queue_submit(queue, &request, &id) == LIGHTGPT_OK);
    CHECK(lightgpt_batch_queue_step(queue, 0) == LIGHTGPT_DONE);
    do
        CHECK(lightgpt_batch_queue_poll(queue, 0, &event) == LIGHTGPT_OK);
    while (event.kind != LIGHTGPT_EVENT_FINISHED);
    return event.timings->reused_tokens;
}

static void sharing(void)
{
    lightgpt_batch_queue *queue = open_queue(0, 0);
    lightgpt_batch_metrics metrics = LIGHTGPT_BATCH_METRICS_INIT;
    CHECK(reused(queue, 0, 0) == 0 && reused(queue, 0, 0) == 29);
    CHECK(reused(queue, LIGHTGPT_SESSION_UNSHARED, 0) == 0);
    CHECK(reused(queue, 0, 5) == 0 && reused(queue, 0, 5) == 29);
    CHECK(lightgpt_batch_queue_metrics(queue, &metrics) == LIGHTGPT_OK);
    CHECK(metrics.reuses == 2 && metrics.reused_tokens == 58);
    CHECK(lightgpt_batch_queue_free(queue) == LIGHTGPT_OK);
}

/* --- Wrong requests --- */

static void wrong_requests(void)
{
    lightgpt_batch_queue *queue = open_queue(0, 0);
    lightgpt_generate_options generate = options();
    lightgpt_batch_request request = request_of(0, &generate);
    struct heard heard = {0};
    uint32_t tokens[2] = {1, 4096};
    uint64_t id = 0;
    CHECK(lightgpt_batch_queue_submit(queue, NULL, &id) == LIGHTGPT_INVALID_ARGUMENT);
    CHECK(lightgpt_batch_queue_submit(queue, &request, NULL) == LIGHTGPT_INVALID_ARGUMENT);
    request.tokens = tokens;
    request.tokens_len = 1;
    CHECK(lightgpt_batch_queue_submit(queue, &request, &id) == LIGHTGPT_INVALID_ARGUMENT);
    request.text = NULL;
    request.tokens_len = 2;
    request.event = hear;
    request.user_data = &heard;
    request.destroy = destroy;
    CHECK(lightgpt_batch_queue_submit(queue, &request, &id) == LIGHTGPT_INVALID_ARGUMENT);
    request.tokens_len = 0;
    CHECK(lightgpt_batch_queue_submit(queue, &request, &id) == LIGHTGPT_INVALID_ARGUMENT);
    request.tokens_len = 1;
    request.priority = 5;
    CHECK(lightgpt_batch_queue_submit(queue, &request, &id) == LIGHTGPT_INVALID_ARGUMENT);
    request.priority = 0;
    request.sharing = 1u << 31;
    CHECK(lightgpt_batch_queue_submit(queue, &request, &id) == LIGHTGPT_UNSUPPORTED);
    request.sharing = 0;
    request.flags = 1u << 31;
    CHECK(lightgpt_batch_queue_submit(queue, &request, &id) == LIGHTGPT_UNSUPPORTED);
    request.text = "a";
    request.text_bytes = 1;
    request.tokens = NULL;
    CHECK(lightgpt_batch_queue_submit(queue, &request, &id) == LIGHTGPT_UNSUPPORTED);
    CHECK(id == 0 && heard.destroyed == 0 && heard.ends == 0);
    CHECK(lightgpt_batch_queue_step(queue, 0) == LIGHTGPT_DONE);
    CHECK(lightgpt_batch_queue_free(queue) == LIGHTGPT_OK);
}

/* --- Callbacks that call their own queue --- */

static struct heard child;

static int32_t call_back(struct heard *heard, const lightgpt_batch_event *event)
{
    lightgpt_batch_metrics metrics = LIGHTGPT_BATCH_METRICS_INIT;
    lightgpt_batch_event other = LIGHTGPT_BATCH_EVENT_INIT;
    if (event->kind != LIGHTGPT_EVENT_TOKEN || heard->tokens != 3)
        return LIGHTGPT_CONTINUE;
    CHECK(lightgpt_batch_queue_step(heard->queue, 0) == LIGHTGPT_BUSY);
    CHECK(lightgpt_batch_queue_free(heard->queue) == LIGHTGPT_BUSY);
    CHECK(lightgpt_batch_queue_poll(heard->queue, UINT64_MAX, &other) == LIGHTGPT_DONE);
    CHECK(lightgpt_batch_queue_drain(heard->queue, UINT64_MAX) == LIGHTGPT_PENDING);
    CHECK(lightgpt_batch_queue_resume(heard->queue) == LIGHTGPT_OK);
    CHECK(lightgpt_batch_queue_metrics(heard->queue, &metrics) == LIGHTGPT_OK);
    submit(heard->queue, 1, &child);
    CHECK(lightgpt_batch_queue_cancel(heard->queue, event->request) == LIGHTGPT_OK);
    return LIGHTGPT_CONTINUE;
}

static int32_t stop(struct heard *heard, const lightgpt_batch_event *event)
{
    (void)event;
    return heard->tokens == 2 ? LIGHTGPT_STOP : LIGHTGPT_CONTINUE;
}

static int32_t answer_nonsense(struct heard *heard, const lightgpt_batch_event *event)
{
    (void)event;
    return heard->tokens == 2 ? 12345 : LIGHTGPT_CONTINUE;
}

static void callbacks(uint32_t flags)
{
    lightgpt_batch_queue *queue = open_queue(flags, 0);
    struct heard calls = {.act = call_back}, stops = {.act = stop};
    struct heard nonsense = {.act = answer_nonsense}, other = {0};
    memset(&child, 0, sizeof child);
    submit(queue, 0, &calls);
    submit(queue, 0, &stops);
    submit(queue, 0, &nonsense);
    submit(queue, 2, &other);
    if (flags == 0)
        CHECK(lightgpt_batch_queue_step(queue, 0) == LIGHTGPT_DONE);
    else
        /* A callback resumes it, so that it takes requests again, but all end. */
        while (lightgpt_batch_queue_drain(queue, UINT64_MAX) != LIGHTGPT_DONE) {
        }
    CHECK(lightgpt_batch_queue_free(queue) == LIGHTGPT_OK);
    CHECK(calls.ends == 1 && calls.status == LIGHTGPT_CANCELLED);
    CHECK(stops.ends == 1 && stops.status == LIGHTGPT_STOPPED && stops.tokens == 2);
    CHECK(stops.finish == LIGHTGPT_FINISH_STOPPED && calls.finish == 0);
    CHECK(nonsense.ends == 1 && nonsense.status == LIGHTGPT_CANCELLED);
    check_complete(&other, 2);
    check_complete(&child, 1);
    CHECK(calls.destroyed == 1 && other.destroyed == 1 && child.destroyed == 1);
}

/* --- Freeing a queue that has work --- */

static void *step_for_long(void *queue)
{
    return (void *)(intptr_t)lightgpt_batch_queue_step(queue, 0);
}

static void free_at_work(uint32_t flags)
{
    for (int round = 0; round < 10; round++) {
        static struct heard heard[EACH];
        lightgpt_batch_queue *queue = open_queue(flags, 0);
        pthread_t thread;
        memset(heard, 0, sizeof heard);
        for (int i = 0; i < EACH; i++)
            submit(queue, i % PROMPTS, &heard[i]);
        if (flags == 0)
            CHECK(pthread_create(&thread, NULL, step_for_long, queue) == 0);
        usleep((useconds_t)(round * 700));
        CHECK(lightgpt_batch_queue_free(queue) == LIGHTGPT_OK);
        if (flags == 0)
            pthread_join(thread, NULL);
        for (int i = 0; i < EACH; i++) {
            CHECK(heard[i].ends == 1 && heard[i].destroyed == 1);
            CHECK(heard[i].status == LIGHTGPT_DONE || heard[i].status == LIGHTGPT_CANCELLED);
            CHECK(strncmp(heard[i].text, expected[i % PROMPTS], strlen(heard[i].text)) == 0);
        }
    }
}

/* --- A pause, and a fork --- */

static void pause_and_fork(void)
{
    lightgpt_batch_queue *queue = open_queue(LIGHTGPT_BATCH_QUEUE_WORKER, 0);
    struct heard heard = {0};
    int status = -1;
    CHECK(lightgpt_batch_queue_pause(queue) == LIGHTGPT_OK);
    submit(queue, 0, &heard);
    pid_t child_process = fork();
    if (child_process == 0) {
        CHECK(lightgpt_batch_queue_step(queue, 0) == LIGHTGPT_FORKED);
        CHECK(lightgpt_batch_queue_free(queue) == LIGHTGPT_FORKED);
        CHECK(lightgpt_batch_queue_free(NULL) == LIGHTGPT_OK);
        exit(EXIT_SUCCESS);
    }
    CHECK(child_process > 0 && waitpid(child_process, &status, 0) == child_process);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(lightgpt_batch_queue_drain(queue, 3000) == LIGHTGPT_PENDING);
    CHECK(__atomic_load_n(&heard.tokens, __ATOMIC_SEQ_CST) == 0);
    CHECK(lightgpt_batch_queue_resume(queue) == LIGHTGPT_OK);
    CHECK(lightgpt_batch_queue_drain(queue, UINT64_MAX) == LIGHTGPT_DONE);
    CHECK(lightgpt_batch_queue_free(queue) == LIGHTGPT_OK);
    check_complete(&heard, 0);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return EXIT_FAILURE;
    lightgpt_open_options small = LIGHTGPT_OPEN_OPTIONS_INIT;
    small.page_tokens = 48;
    CHECK(lightgpt_model_open(argv[1], &small, &model) == LIGHTGPT_INVALID_ARGUMENT);
    small.page_tokens = 16;
    CHECK(lightgpt_model_open(argv[1], &small, &model) == LIGHTGPT_OK);
    make_expected();
    worker();
    polling();
    sharing();
    wrong_requests();
    callbacks(0);
    callbacks(LIGHTGPT_BATCH_QUEUE_WORKER);
    free_at_work(0);
    free_at_work(LIGHTGPT_BATCH_QUEUE_WORKER);
    pause_and_fork();
    /* The queue keeps its model alive. */
    lightgpt_batch_queue *queue = open_queue(0, 0);
    struct heard last = {0};
    submit(queue, 2, &last);
    CHECK(lightgpt_model_free(model) == LIGHTGPT_OK);
    CHECK(lightgpt_batch_queue_step(queue, 0) == LIGHTGPT_DONE);
    CHECK(lightgpt_batch_queue_free(queue) == LIGHTGPT_OK);
    check_complete(&last, 2);
    printf("all well\n");
    return EXIT_SUCCESS;
}
