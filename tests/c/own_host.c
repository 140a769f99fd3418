/*
 * A host with habits of its own: it flushes denormals, has small stacks, forks, frees objects that
 * are in use, brings its own executor and memory. None of it may harm it, or change a logit.
 */
#define _GNU_SOURCE
#include "check.h"

#include <lightgpt.h>

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <xmmintrin.h>
#define CONTROL_WORD() _mm_getcsr()
#define SET_CONTROL_WORD(word) _mm_setcsr(word)
#define FLUSHING 0x9fc0u
#else
#define CONTROL_WORD() 0u
#define SET_CONTROL_WORD(word) ((void)(word))
#define FLUSHING 0u
#endif

enum { TOKENS = 6 };
static const char *path;
static const char prompt[] = "Once upon a time";

static lightgpt_model *open_model(void)
{
    lightgpt_model *model = NULL;
    CHECK(lightgpt_model_open(path, NULL, &model) == LIGHTGPT_OK);
    return model;
}

/* A session with the prompt in it. */
static lightgpt_session *open_session(const lightgpt_model *model, const lightgpt_team *team)
{
    lightgpt_session *session = NULL;
    CHECK(lightgpt_session_new(model, team, NULL, &session) == LIGHTGPT_OK);
    CHECK(lightgpt_session_feed_text(session, prompt, strlen(prompt), LIGHTGPT_TEXT_ADD_SPECIAL,
                                     NULL)
          == LIGHTGPT_OK);
    return session;
}

struct logits {
    size_t len;
    float *values;
};

static struct logits logits_of(const lightgpt_model *model, const lightgpt_team *team)
{
    struct logits logits = {0, NULL};
    lightgpt_session *session = open_session(model, team);
    CHECK(lightgpt_session_logits(session, NULL, 0, &logits.len) == LIGHTGPT_OK);
    logits.values = malloc(logits.len * sizeof(float));
    CHECK(lightgpt_session_logits(session, logits.values, logits.len, &logits.len) == LIGHTGPT_OK);
    CHECK(lightgpt_session_free(session) == LIGHTGPT_OK);
    return logits;
}

static struct logits expected;

static void check_logits(const lightgpt_model *model, const lightgpt_team *team)
{
    struct logits found = logits_of(model, team);
    CHECK(found.len == expected.len);
    CHECK(memcmp(found.values, expected.values, found.len * sizeof(float)) == 0);
    free(found.values);
}

/* --- The float environment --- */

static int32_t on_event_flushing(void *user_data, const lightgpt_event *event)
{
    (void)event;
    (*(int *)user_data)++;
    CHECK((CONTROL_WORD() & ~0x3fu) == FLUSHING);
    return LIGHTGPT_CONTINUE;
}

static void float_environment(void)
{
    lightgpt_model *model = open_model();
    int events = 0;
    unsigned before = CONTROL_WORD();
    SET_CONTROL_WORD(FLUSHING);
    /* The threads of this team begin their lives with the flushing word. */
    lightgpt_team_options options = LIGHTGPT_TEAM_OPTIONS_INIT;
    lightgpt_team *team = NULL;
    options.threads = 3;
    CHECK(lightgpt_team_new(&options, &team) == LIGHTGPT_OK);
    check_logits(model, team);
    CHECK(CONTROL_WORD() == FLUSHING);

    lightgpt_session *session = open_session(model, team);
    lightgpt_generate_options generate = LIGHTGPT_GENERATE_OPTIONS_INIT;
    generate.tokens_max = TOKENS;
    CHECK(lightgpt_session_generate(session, &generate, on_event_flushing, &events)
          == LIGHTGPT_DONE);
    CHECK(events >= TOKENS && CONTROL_WORD() == FLUSHING);
    CHECK(lightgpt_session_free(session) == LIGHTGPT_OK);
    CHECK(lightgpt_model_open(NULL, NULL, &model) < 0);
    CHECK(CONTROL_WORD() == FLUSHING);
    SET_CONTROL_WORD(before);
    lightgpt_team_free(team);
    lightgpt_model_free(model);
}

/* --- A thread with a small stack --- */

static void *all_on_this_thread(void *unused)
{
    (void)unused;
    lightgpt_model *model = open_model();
    lightgpt_session *session = NULL;
    check_logits(model, NULL);
    session = open_session(model, NULL);
    lightgpt_generate_options generate = LIGHTGPT_GENERATE_OPTIONS_INIT;
    generate.tokens_max = TOKENS;
    CHECK(lightgpt_session_generate(session, &generate, NULL, NULL) == LIGHTGPT_DONE);
    lightgpt_session_free(session);
    lightgpt_model_free(model);
    return NULL;
}

static void small_stack(void)
{
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    CHECK(pthread_attr_setstacksize(&attributes, 64 * 1024) == 0);
    CHECK(pthread_create(&thread, &attributes, all_on_this_thread, NULL) == 0);
    pthread_join(thread, NULL);
    pthread_attr_destroy(&attributes);
}

/* --- Fork --- */

static void fork_and_use(void)
{
    lightgpt_model *model = open_model();
    lightgpt_session *session = open_session(model, NULL);
    lightgpt_model *other = NULL;
    lightgpt_event event = LIGHTGPT_EVENT_INIT;
    pid_t child = fork();
    if (child == 0) {
        CHECK(lightgpt_model_open(path, NULL, &other) == LIGHTGPT_FORKED);
        CHECK(lightgpt_session_prefill(session, 0) == LIGHTGPT_FORKED);
        CHECK(lightgpt_session_step(session, 0, &event) == LIGHTGPT_FORKED);
        CHECK(lightgpt_session_cancel(session) == LIGHTGPT_FORKED);
        CHECK(lightgpt_session_free(session) == LIGHTGPT_FORKED);
        CHECK(lightgpt_model_free(model) == LIGHTGPT_FORKED);
        CHECK(lightgpt_model_free(NULL) == LIGHTGPT_OK && lightgpt_team_free(NULL) == LIGHTGPT_OK);
        CHECK(lightgpt_session_free(NULL) == LIGHTGPT_OK);
        CHECK(lightgpt_sampler_free(NULL) == LIGHTGPT_OK);
        CHECK(strstr(lightgpt_last_error(), "forked") != NULL);
        CHECK(strcmp(lightgpt_version(), LIGHTGPT_VERSION) == 0);
        exit(EXIT_SUCCESS);
    }
    int status = -1;
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    /* The parent goes on. */
    CHECK(lightgpt_session_prefill(session, 0) == LIGHTGPT_DONE);
    CHECK(lightgpt_session_free(session) == LIGHTGPT_OK);
    CHECK(lightgpt_model_free(model) == LIGHTGPT_OK);
}

/* --- Freeing and cancelling what another thread uses --- */

static int started;

static int32_t on_event_slowly(void *user_data, const lightgpt_event *event)
{
    (void)user_data;
    (void)event;
    __atomic_store_n(&started, 1, __ATOMIC_SEQ_CST);
    usleep(1000);
    return LIGHTGPT_CONTINUE;
}

static void *generate_for_long(void *session)
{
    lightgpt_generate_options generate = LIGHTGPT_GENERATE_OPTIONS_INIT;
    generate.flags = LIGHTGPT_GENERATE_IGNORE_END;
    return (void *)(intptr_t)lightgpt_session_generate(session, &generate, on_event_slowly, NULL);
}

static void end_from_another_thread(int32_t (*end)(lightgpt_session *))
{
    lightgpt_model *model = open_model();
    lightgpt_session *session = open_session(model, NULL);
    pthread_t thread;
    void *answer = NULL;
    started = 0;
    CHECK(pthread_create(&thread, NULL, generate_for_long, session) == 0);
    while (!__atomic_load_n(&started, __ATOMIC_SEQ_CST))
        sched_yield();
    CHECK(end(session) == LIGHTGPT_OK);
    pthread_join(thread, &answer);
    CHECK((int32_t)(intptr_t)answer == LIGHTGPT_CANCELLED);
    int32_t again = lightgpt_session_free(session);
    CHECK(again == LIGHTGPT_OK || again == LIGHTGPT_INVALID_HANDLE);
    CHECK(lightgpt_session_free(session) == LIGHTGPT_INVALID_HANDLE);
    lightgpt_model_free(model);
}

static int32_t cancel(lightgpt_session *session)
{
    int32_t status = lightgpt_session_cancel(session);
    return status;
}

/* --- How soon a cancel is answered --- */

static double now_ms(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e3 + (double)time.tv_nsec / 1e6;
}

static void *prefill(void *session)
{
    __atomic_store_n(&started, 1, __ATOMIC_SEQ_CST);
    return (void *)(intptr_t)lightgpt_session_prefill(session, 0);
}

static void cancel_soon(void)
{
    enum { ROUNDS = 50, ENOUGH = 5, LIMIT_MS = 20 };
    lightgpt_model *model = open_model();
    uint32_t tokens[250];
    int in_time = 0, cancelled = 0;
    double fastest = 1e9;
    for (int i = 0; i < 250; i++)
        tokens[i] = 300 + (uint32_t)i;
    /* A busy machine may be late, or the prompt done before the cancel comes: try again. */
    for (int round = 0; round < ROUNDS && in_time < ENOUGH; round++) {
        lightgpt_session *session = NULL;
        pthread_t thread;
        void *answer = NULL;
        CHECK(lightgpt_session_new(model, NULL, NULL, &session) == LIGHTGPT_OK);
        CHECK(lightgpt_session_feed_tokens(session, tokens, 250) == LIGHTGPT_OK);
        started = 0;
        CHECK(pthread_create(&thread, NULL, prefill, session) == 0);
        while (!__atomic_load_n(&started, __ATOMIC_SEQ_CST))
            sched_yield();
        usleep(1000);
        double before = now_ms();
        CHECK(lightgpt_session_cancel(session) == LIGHTGPT_OK);
        pthread_join(thread, &answer);
        if ((int32_t)(intptr_t)answer == LIGHTGPT_CANCELLED) {
            double took = now_ms() - before;
            cancelled++;
            in_time += took < LIMIT_MS;
            fastest = took < fastest ? took : fastest;
        }
        lightgpt_session_free(session);
    }
    if (cancelled == 0 || in_time == 0) {
        fprintf(stderr, "%d of %d prompts were cancelled, %d in time, the fastest in %.1f ms\n",
                cancelled, ROUNDS, in_time, fastest);
        exit(EXIT_FAILURE);
    }
    lightgpt_model_free(model);
}

/* --- An executor and memory of the host's --- */

static lightgpt_body_fn late_body;
static void *late_body_data;
static int destroyed, released;

static void parallel_for(void *user_data, uint32_t bodies, lightgpt_body_fn body, void *body_data)
{
    CHECK(user_data == &destroyed);
    late_body = body;
    late_body_data = body_data;
    for (uint32_t i = 0; i < bodies / 2; i++)
        body(body_data);
}

static void count(void *user_data)
{
    ++*(int *)user_data;
}

static void executor_and_memory(void)
{
    FILE *file = fopen(path, "rb");
    lightgpt_model *model = NULL;
    lightgpt_model_info info = LIGHTGPT_MODEL_INFO_INIT;
    CHECK(file != NULL && fseek(file, 0, SEEK_END) == 0);
    long bytes = ftell(file);
    unsigned char *data = malloc((size_t)bytes);
    rewind(file);
    CHECK(data != NULL && fread(data, 1, (size_t)bytes, file) == (size_t)bytes);

    lightgpt_team_options options = LIGHTGPT_TEAM_OPTIONS_INIT;
    lightgpt_team *team = NULL;
    options.threads = 4;
    options.parallel_for = parallel_for;
    options.parallel_for_data = &destroyed;
    options.parallel_for_destroy = count;
    CHECK(lightgpt_team_new(&options, &team) == LIGHTGPT_OK);

    /* A failing call takes nothing. */
    CHECK(lightgpt_model_open_memory(data, 100, count, &released, NULL, &model)
          == LIGHTGPT_FORMAT);
    CHECK(released == 0);
    CHECK(lightgpt_model_open_memory(data, (size_t)bytes, count, &released, NULL, &model)
          == LIGHTGPT_OK);
    check_logits(model, team);
    CHECK(late_body != NULL);
    late_body(late_body_data); /* long after its executor has returned */

    lightgpt_session *session = open_session(model, team);
    CHECK(lightgpt_team_free(team) == LIGHTGPT_OK && destroyed == 0);
    CHECK(lightgpt_model_free(model) == LIGHTGPT_OK && released == 0);
    CHECK(lightgpt_session_prefill(session, 0) == LIGHTGPT_DONE);
    CHECK(lightgpt_session_free(session) == LIGHTGPT_OK);
    CHECK(destroyed == 1 && released == 1);

    lightgpt_open_options copy = LIGHTGPT_OPEN_OPTIONS_INIT;
    copy.flags = LIGHTGPT_OPEN_COPY;
    CHECK(lightgpt_model_open_memory(data, (size_t)bytes, count, &released, &copy, &model)
          == LIGHTGPT_OK);
    CHECK(released == 2);
    memset(data, 0, (size_t)bytes);
    free(data);
    check_logits(model, NULL);
    lightgpt_model_free(model);

    CHECK(lightgpt_model_open_fd(fileno(file), 0, (uint64_t)bytes, NULL, &model) == LIGHTGPT_OK);
    fclose(file);
    check_logits(model, NULL);
    CHECK(lightgpt_model_describe(model, &info) == LIGHTGPT_OK);
    CHECK(info.layers == 4 && info.file_bytes == (uint64_t)bytes);
    lightgpt_model_free(model);
}

/* --- Large memory and a file of the host's --- */

struct memory {
    size_t held, most;
    int crooked, destroyed;
};

static void *allocate(void *user_data, size_t bytes, size_t alignment, uint32_t tag)
{
    struct memory *memory = user_data;
    char *given = NULL;
    CHECK(bytes > 0 && alignment <= 64 && tag <= LIGHTGPT_MEMORY_MISC);
    if (__atomic_load_n(&memory->held, __ATOMIC_SEQ_CST) + bytes > memory->most)
        return NULL;
    CHECK(posix_memalign((void **)&given, 128, bytes + 128) == 0);
    __atomic_fetch_add(&memory->held, bytes, __ATOMIC_SEQ_CST);
    memset(given, 0xff, bytes + 128);
    return given + (memory->crooked ? 8 : 64);
}

static void release(void *user_data, void *given, size_t bytes, size_t alignment, uint32_t tag)
{
    struct memory *memory = user_data;
    CHECK(bytes > 0 && alignment <= 64 && tag <= LIGHTGPT_MEMORY_MISC);
    __atomic_fetch_sub(&memory->held, bytes, __ATOMIC_SEQ_CST);
    free((char *)given - (memory->crooked ? 8 : 64));
}

static void destroy(void *user_data)
{
    struct memory *memory = user_data;
    CHECK(memory->held == 0);
    memory->destroyed++;
}

struct file {
    int fd, calls, fails_at;
    int64_t answer;
};

static int64_t read_at(void *user_data, uint64_t offset, void *buffer, size_t bytes)
{
    struct file *file = user_data;
    if (file->calls++ == file->fails_at)
        return file->answer;
    return pread(file->fd, buffer, bytes > 100000 ? 100000 : bytes, (off_t)offset + 5);
}

static int32_t on_progress(void *user_data, uint64_t done, uint64_t total)
{
    (void)total;
    *(uint64_t *)user_data = done;
    return done > 2000000 ? LIGHTGPT_CANCEL : LIGHTGPT_CONTINUE;
}

static void memory_and_file(void)
{
    struct memory memory = {0, SIZE_MAX, 0, 0};
    struct stat about;
    struct file file = {open(path, O_RDONLY), 0, -1, 0};
    lightgpt_allocator allocator = LIGHTGPT_ALLOCATOR_INIT;
    lightgpt_open_options options = LIGHTGPT_OPEN_OPTIONS_INIT;
    lightgpt_model *model = NULL;
    lightgpt_session *session = NULL;
    uint64_t done = 0;
    CHECK(file.fd >= 0 && fstat(file.fd, &about) == 0);
    const uint64_t bytes = (uint64_t)about.st_size;
    char archive[] = "/tmp/lightgpt-archive-XXXXXX";
    const int copy = mkstemp(archive);
    char *all = malloc(bytes);
    CHECK(copy >= 0 && all != NULL && pread(file.fd, all, bytes, 0) == (ssize_t)bytes);
    CHECK(write(copy, "front", 5) == 5 && write(copy, all, bytes) == (ssize_t)bytes);
    CHECK(unlink(archive) == 0 && close(file.fd) == 0);
    free(all);
    file.fd = copy;

    allocator.allocate = allocate;
    allocator.user_data = &memory;
    allocator.destroy = destroy;
    options.allocator = &allocator;
    /* Half an allocator is none. */
    CHECK(lightgpt_model_open(path, &options, &model) == LIGHTGPT_INVALID_ARGUMENT);
    allocator.release = release;
    CHECK(lightgpt_model_open_reader(NULL, &file, bytes, &options, &model)
          == LIGHTGPT_INVALID_ARGUMENT);

    /* What fails has given everything back, and takes nothing. */
    memory.most = 1000000;
    CHECK(lightgpt_model_open_reader(read_at, &file, bytes, &options, &model)
          == LIGHTGPT_OUT_OF_MEMORY);
    memory.most = SIZE_MAX;
    memory.crooked = 1;
    CHECK(lightgpt_model_open_reader(read_at, &file, bytes, &options, &model)
          == LIGHTGPT_OUT_OF_MEMORY);
    CHECK(strstr(lightgpt_last_error(), "multiple of 64") != NULL);
    memory.crooked = 0;
    const struct {
        int64_t answer;
        int32_t status;
    } failures[] = {{-1, LIGHTGPT_IO},
                    {INT64_MIN, LIGHTGPT_IO},
                    {0, LIGHTGPT_IO},
                    {INT64_MAX, LIGHTGPT_INVALID_ARGUMENT}};
    for (size_t i = 0; i < sizeof failures / sizeof *failures; i++)
        for (file.fails_at = 0; file.fails_at < 20; file.fails_at += 9) {
            file.calls = 0;
            file.answer = failures[i].answer;
            CHECK(lightgpt_model_open_reader(read_at, &file, bytes, &options, &model)
                  == failures[i].status);
            CHECK(strstr(lightgpt_last_error(), "offset ") != NULL && memory.held == 0);
        }
    file.fails_at = -1;
    options.progress = on_progress;
    options.progress_data = &done;
    CHECK(lightgpt_model_open_reader(read_at, &file, bytes, &options, &model)
          == LIGHTGPT_CANCELLED);
    CHECK(done > 2000000 && done < bytes && memory.held == 0 && memory.destroyed == 0);

    options.progress = NULL;
    CHECK(lightgpt_model_open_reader(read_at, &file, bytes, &options, &model) == LIGHTGPT_OK);
    CHECK(close(copy) == 0 && memory.held > 4000000);
    check_logits(model, NULL);
    /* When there is no more, a session says so, and goes on when there is. */
    session = open_session(model, NULL);
    memory.most = memory.held;
    CHECK(lightgpt_session_generate(session, NULL, NULL, NULL) == LIGHTGPT_OUT_OF_MEMORY);
    memory.most = SIZE_MAX;
    CHECK(lightgpt_session_generate(session, NULL, NULL, NULL) == LIGHTGPT_DONE);
    CHECK(lightgpt_model_free(model) == LIGHTGPT_OK && memory.destroyed == 0);
    CHECK(lightgpt_session_free(session) == LIGHTGPT_OK && memory.destroyed == 1);
}

/* --- Steps --- */

static void steps(void)
{
    lightgpt_model *model = open_model();
    lightgpt_session *session = open_session(model, NULL);
    lightgpt_generate_options generate = LIGHTGPT_GENERATE_OPTIONS_INIT;
    lightgpt_event event = LIGHTGPT_EVENT_INIT;
    int32_t status = LIGHTGPT_OK;
    int tokens = 0;
    generate.tokens_max = TOKENS;
    CHECK(lightgpt_session_step(session, 0, &event) == LIGHTGPT_INVALID_ARGUMENT);
    CHECK(lightgpt_session_begin(session, &generate) == LIGHTGPT_OK);
    CHECK(lightgpt_session_begin(session, &generate) == LIGHTGPT_BUSY);
    CHECK(lightgpt_session_feed_text(session, "a", 1, 0, NULL) == LIGHTGPT_BUSY);
    while (status != LIGHTGPT_DONE) {
        status = lightgpt_session_step(session, 50, &event);
        CHECK(status >= 0);
        CHECK((status == LIGHTGPT_PENDING) == (event.kind == LIGHTGPT_EVENT_NONE));
        tokens += event.kind == LIGHTGPT_EVENT_TOKEN;
    }
    CHECK(event.kind == LIGHTGPT_EVENT_FINISHED && event.finish == LIGHTGPT_FINISH_LENGTH);
    CHECK(tokens == TOKENS);
    /* A cancel between two steps. */
    CHECK(lightgpt_session_begin(session, &generate) == LIGHTGPT_OK);
    CHECK(lightgpt_session_cancel(session) == LIGHTGPT_OK);
    while ((status = lightgpt_session_step(session, 0, &event)) >= 0 && status != LIGHTGPT_DONE) {
    }
    CHECK(status == LIGHTGPT_CANCELLED);
    char message[64];
    size_t bytes = 0;
    CHECK(lightgpt_session_last_error(session, message, sizeof message, &bytes) == LIGHTGPT_OK);
    CHECK(bytes > 0);
    lightgpt_session_free(session);
    lightgpt_model_free(model);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return EXIT_FAILURE;
    path = argv[1];
    lightgpt_model *model = open_model();
    expected = logits_of(model, NULL);
    CHECK(expected.len == 4096);
    lightgpt_model_free(model);

    float_environment();
    small_stack();
    fork_and_use();
    end_from_another_thread(lightgpt_session_free);
    end_from_another_thread(cancel);
    cancel_soon();
    executor_and_memory();
    memory_and_file();
    steps();
    free(expected.values);
    printf("all well\n");
    return EXIT_SUCCESS;
}
