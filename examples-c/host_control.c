/*
 * The host in control, as a game would be: the engine's workers compute, its allocator gives the
 * memory, and the model lies in the middle of an archive that the engine reads. The library creates
 * no thread and takes no large memory of its own.
 *
 *     host_control ARCHIVE OFFSET BYTES
 */
#define _POSIX_C_SOURCE 200112L /* for posix_memalign and fseeko */
#include <lightgpt.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER, done = PTHREAD_COND_INITIALIZER;
static struct { lightgpt_body_fn body; void *data; uint32_t wanted, busy; } job;

/* One of the engine's threads, which live as long as the engine. */
static void *worker(void *unused)
{
    pthread_mutex_lock(&lock);
    for (;;) {
        while (job.wanted == 0)
            pthread_cond_wait(&wake, &lock);
        job.wanted--;
        job.busy++;
        pthread_mutex_unlock(&lock);
        job.body(job.data);
        pthread_mutex_lock(&lock);
        if (--job.busy == 0)
            pthread_cond_signal(&done);
    }
    return unused;
}

/* This thread works too; what nobody has begun by then is not needed any more. */
static void parallel_for(void *unused, uint32_t bodies, lightgpt_body_fn body, void *body_data)
{
    (void)unused;
    pthread_mutex_lock(&lock);
    job.body = body;
    job.data = body_data;
    job.wanted = bodies;
    pthread_cond_broadcast(&wake);
    pthread_mutex_unlock(&lock);
    body(body_data);
    pthread_mutex_lock(&lock);
    job.wanted = 0;
    while (job.busy > 0)
        pthread_cond_wait(&done, &lock);
    pthread_mutex_unlock(&lock);
}

/* What is held, by tag; with several sessions at once that would need a lock. */
static size_t held[4];

static void *allocate(void *unused, size_t bytes, size_t alignment, uint32_t tag)
{
    void *memory = unused;
    if (posix_memalign(&memory, alignment, bytes) != 0)
        return NULL;
    held[tag] += bytes;
    return memory;
}

static void release(void *unused, void *memory, size_t bytes, size_t alignment, uint32_t tag)
{
    (void)unused, (void)alignment;
    held[tag] -= bytes;
    free(memory);
}

static long long begins;
static int64_t read_at(void *archive, uint64_t offset, void *buffer, size_t bytes)
{
    const int failed = fseeko(archive, (off_t)(begins + (long long)offset), SEEK_SET);
    return failed ? -1 : (int64_t)fread(buffer, 1, bytes, archive);
}

static int32_t print(void *out, const lightgpt_event *event)
{
    fwrite(event->text, 1, (size_t)event->text_bytes, out);
    return LIGHTGPT_CONTINUE;
}

int main(int argc, char **argv)
{
    lightgpt_open_options options = LIGHTGPT_OPEN_OPTIONS_INIT;
    lightgpt_allocator allocator = LIGHTGPT_ALLOCATOR_INIT;
    lightgpt_team_options threads = LIGHTGPT_TEAM_OPTIONS_INIT;
    lightgpt_model *model = NULL;
    lightgpt_team *team = NULL;
    lightgpt_session *session = NULL;
    pthread_t thread;
    FILE *archive = argc == 4 ? fopen(argv[1], "rb") : NULL;
    if (archive == NULL || pthread_create(&thread, NULL, worker, NULL) != 0)
        return fprintf(stderr, "usage: %s ARCHIVE OFFSET BYTES, to be read\n", argv[0]), EXIT_FAILURE;
    begins = atoll(argv[2]);
    allocator.allocate = allocate;
    allocator.release = release;
    options.allocator = &allocator;
    threads.threads = 2;
    threads.parallel_for = parallel_for;
    const uint64_t bytes = strtoull(argv[3], NULL, 10);
    const int failed = lightgpt_model_open_reader(read_at, archive, bytes, &options, &model) < 0
        || lightgpt_team_new(&threads, &team) < 0
        || lightgpt_session_new(model, team, NULL, &session) < 0
        || lightgpt_session_feed_text(session, "The old king", 12, 1, NULL) < 0
        || lightgpt_session_generate(session, NULL, print, stdout) < 0;
    if (failed)
        fprintf(stderr, "%s\n", lightgpt_last_error());
    printf("\n%zu bytes of weights, %zu of keys and values, %zu others\n", held[0], held[1],
           held[2] + held[3]);
    lightgpt_session_free(session);
    lightgpt_team_free(team);
    lightgpt_model_free(model);
    return failed || held[0] + held[1] + held[2] + held[3] > 0;
}
