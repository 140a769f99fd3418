/*
 * Many prompts at once: 16 texts one after the other, each in a session, and then all together in a
 * batch queue. Each pass reads the weights once for all of them, so together they are faster; the
 * texts are the same.
 *
 *     batch MODEL.gguf [TOKENS]
 *
 * Prints the times, how much faster the batch is, and what a sixteenth of it is: the efficiency.
 */
#define _POSIX_C_SOURCE 199309L /* for clock_gettime */
#include <lightgpt.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PROMPTS = 16, TEXT_MAX = 16384 };

static const char *const prompts[PROMPTS] = {
    "Once upon a time", "The little dog",   "A big red ball",    "In the garden",
    "One sunny day",    "The old king",     "Mia had a kite",    "There was a cat",
    "It was raining",   "Tom and his mom",  "The tiny mouse",    "Far away, a bird",
    "After lunch, Ben", "The moon was big", "Grandma baked pie", "Two friends went",
};

static char alone[PROMPTS][TEXT_MAX], together[PROMPTS][TEXT_MAX];

static void check(int32_t status, const char *what)
{
    if (status < 0) {
        fprintf(stderr, "%s: %s: %s\n", what, lightgpt_status_name(status), lightgpt_last_error());
        exit(EXIT_FAILURE);
    }
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static int32_t append(char *text, const char *bytes, uint64_t len)
{
    const size_t room = TEXT_MAX - 1 - strlen(text);
    if (len > 0)
        strncat(text, bytes, len < room ? (size_t)len : room);
    return LIGHTGPT_CONTINUE;
}

static int32_t on_event(void *text, const lightgpt_event *event)
{
    return append(text, event->text, event->text_bytes);
}

/* Called for the events of one request, which its user_data tells apart. */
static int32_t on_batch_event(void *text, const lightgpt_batch_event *event)
{
    if (event->kind == LIGHTGPT_EVENT_FINISHED && event->status < 0)
        fprintf(stderr, "%s: %s\n", lightgpt_status_name(event->status), event->message);
    return append(text, event->text, event->text_bytes);
}

int main(int argc, char **argv)
{
    lightgpt_model *model = NULL;
    lightgpt_team *team = NULL;
    lightgpt_batch_queue *queue = NULL;
    if (argc < 2) {
        fprintf(stderr, "usage: %s MODEL.gguf [TOKENS]\n", argv[0]);
        return EXIT_FAILURE;
    }
    lightgpt_generate_options options = LIGHTGPT_GENERATE_OPTIONS_INIT;
    options.flags = LIGHTGPT_GENERATE_IGNORE_END;
    options.tokens_max = argc > 2 ? strtoull(argv[2], NULL, 10) : 50;
    check(lightgpt_model_open(argv[1], NULL, &model), argv[1]);
    check(lightgpt_team_new(NULL, &team), "team");

    double start = now();
    for (int i = 0; i < PROMPTS; i++) {
        lightgpt_session *session = NULL;
        check(lightgpt_session_new(model, team, NULL, &session), "session");
        check(lightgpt_session_feed_text(session, prompts[i], strlen(prompts[i]),
                                         LIGHTGPT_TEXT_ADD_SPECIAL, NULL),
              prompts[i]);
        check(lightgpt_session_generate(session, &options, on_event, alone[i]), prompts[i]);
        lightgpt_session_free(session);
    }
    const double one_by_one = now() - start;

    check(lightgpt_batch_queue_new(model, team, NULL, &queue), "queue");
    start = now();
    for (int i = 0; i < PROMPTS; i++) {
        lightgpt_batch_request request = LIGHTGPT_BATCH_REQUEST_INIT;
        uint64_t id = 0;
        request.flags = LIGHTGPT_TEXT_ADD_SPECIAL;
        request.text = prompts[i];
        request.text_bytes = strlen(prompts[i]);
        request.generate = &options;
        request.event = on_batch_event;
        request.user_data = together[i];
        check(lightgpt_batch_queue_submit(queue, &request, &id), prompts[i]);
    }
    check(lightgpt_batch_queue_step(queue, 0), "step"); /* 0: until all are done */
    const double batched = now() - start;
    int same = 0;
    for (int i = 0; i < PROMPTS; i++)
        same += strcmp(alone[i], together[i]) == 0;
    const double tokens = (double)options.tokens_max * PROMPTS, faster = one_by_one / batched;
    printf("one by one: %6.3f s, %7.1f tokens/s\n", one_by_one, tokens / one_by_one);
    printf("together:   %6.3f s, %7.1f tokens/s\n", batched, tokens / batched);
    printf("%.2f times as fast, efficiency %.0f %%; %d of %d texts are the same\n", faster,
           100 * faster / PROMPTS, same, PROMPTS);
    lightgpt_batch_queue_free(queue);
    lightgpt_team_free(team);
    lightgpt_model_free(model);
    return same == PROMPTS ? EXIT_SUCCESS : EXIT_FAILURE;
}
