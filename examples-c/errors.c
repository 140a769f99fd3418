/*
 * Does everything wrong that a program can do, and shows that each mistake is answered.
 *
 *     errors MODEL.gguf
 *
 * Exits with 0 if every answer is the expected one. Link with -pthread.
 */
#include <lightgpt.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static int wrong;

/* A row of the table: what was tried, what it was answered, and why. */
static void expect(const char *what, int32_t status, int32_t expected)
{
    int ok = status == expected;
    printf("%s %-30s %-26s %.90s\n", ok ? "  " : "!!", what, lightgpt_status_name(status),
           status < 0 ? lightgpt_last_error() : "");
    wrong += !ok;
}

/* What the mistakes below work with. */
struct world {
    lightgpt_model *model;
    lightgpt_session *session;
};

static void *use_session(void *argument)
{
    struct world *world = argument;
    lightgpt_metrics metrics = LIGHTGPT_METRICS_INIT;
    expect("use from two threads", lightgpt_session_metrics(world->session, &metrics),
           LIGHTGPT_BUSY);
    return NULL;
}

/* Runs while the session is in use by lightgpt_session_generate. */
static int32_t on_event(void *user_data, const lightgpt_event *event)
{
    struct world *world = user_data;
    pthread_t thread;
    if (event->kind != LIGHTGPT_EVENT_TOKEN)
        return LIGHTGPT_CONTINUE;
    if (pthread_create(&thread, NULL, use_session, world) == 0)
        pthread_join(thread, NULL);
    int32_t status = lightgpt_session_rewind(world->session, 0);
    expect("rewind from the callback", status, LIGHTGPT_BUSY);
    expect("free from the callback", lightgpt_session_free(world->session), LIGHTGPT_BUSY);
    return LIGHTGPT_CANCEL;
}

static void wrong_arguments(struct world *world)
{
    lightgpt_open_options options = LIGHTGPT_OPEN_OPTIONS_INIT;
    lightgpt_model_info info = LIGHTGPT_MODEL_INFO_INIT;
    lightgpt_model *model = NULL;
    uint32_t token = UINT32_MAX;
    char byte = 'x';
    size_t needed = 0;
    int32_t status;
    expect("no path", lightgpt_model_open(NULL, NULL, &model), LIGHTGPT_INVALID_ARGUMENT);
    expect("no result", lightgpt_model_open("a", NULL, NULL), LIGHTGPT_INVALID_ARGUMENT);
    expect("unknown file", lightgpt_model_open("no/such/file", NULL, &model), LIGHTGPT_IO);
    expect("broken file", lightgpt_model_open_memory("GGUF", 4, NULL, NULL, NULL, &model),
           LIGHTGPT_FORMAT);
    options.struct_size = 0;
    expect("struct_size 0", lightgpt_model_open("a", &options, &model), LIGHTGPT_ABI_MISMATCH);
    options.struct_size = 13;
    expect("struct_size 13", lightgpt_model_open("a", &options, &model), LIGHTGPT_ABI_MISMATCH);
    options.struct_size = sizeof options;
    options.flags = 1u << 31;
    expect("unknown flag", lightgpt_model_open("a", &options, &model), LIGHTGPT_UNSUPPORTED);
    info.struct_size = 0;
    status = lightgpt_model_describe(world->model, &info);
    expect("out-struct of size 0", status, LIGHTGPT_ABI_MISMATCH);
    status = lightgpt_model_token_text(world->model, 259, &byte, 0, &needed);
    expect("buffer too small", status, LIGHTGPT_BUFFER_TOO_SMALL);
    status = lightgpt_model_metadata_text(world->model, "a", &byte, 1, &needed);
    expect("unknown key", status, LIGHTGPT_NOT_FOUND);
    status = lightgpt_model_tokenize(world->model, "\xff", 1, 0, &token, 1, &needed);
    expect("text that is not UTF-8", status, LIGHTGPT_INVALID_ARGUMENT);
    status = lightgpt_session_feed_tokens(world->session, &token, 1);
    expect("unknown token", status, LIGHTGPT_INVALID_ARGUMENT);
    status = lightgpt_session_generate(world->session, NULL, NULL, NULL);
    expect("nothing to go on from", status, LIGHTGPT_INVALID_ARGUMENT);
}

int main(int argc, char **argv)
{
    struct world world = {NULL, NULL};
    if (argc != 2) {
        fprintf(stderr, "usage: %s MODEL.gguf\n", argv[0]);
        return EXIT_FAILURE;
    }
    expect("open", lightgpt_model_open(argv[1], NULL, &world.model), LIGHTGPT_OK);
    int32_t status = lightgpt_session_new(NULL, NULL, NULL, &world.session);
    expect("a session of no model", status, LIGHTGPT_INVALID_HANDLE);
    expect("session", lightgpt_session_new(world.model, NULL, NULL, &world.session), LIGHTGPT_OK);
    wrong_arguments(&world);

    expect("feed", lightgpt_session_feed_text(world.session, "a", 1, 0, NULL), LIGHTGPT_OK);
    status = lightgpt_session_generate(world.session, NULL, on_event, &world);
    expect("generate, then cancel", status, LIGHTGPT_CANCELLED);

    status = lightgpt_session_cancel((lightgpt_session *)(void *)world.model);
    expect("a model as a session", status, LIGHTGPT_INVALID_HANDLE);
    status = lightgpt_session_cancel((lightgpt_session *)(void *)&world);
    expect("an address as a session", status, LIGHTGPT_INVALID_HANDLE);
    expect("free the model", lightgpt_model_free(world.model), LIGHTGPT_OK);
    expect("free it again", lightgpt_model_free(world.model), LIGHTGPT_INVALID_HANDLE);
    expect("free its session later", lightgpt_session_free(world.session), LIGHTGPT_OK);
    expect("use the freed session", lightgpt_session_prefill(world.session, 0),
           LIGHTGPT_INVALID_HANDLE);
    printf("%d wrong answers\n", wrong);
    return wrong == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
