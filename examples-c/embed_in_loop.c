/*
 * Generates inside the loop of a program that has other things to do, such as a game: each frame
 * gives the model a budget of time, and the text grows meanwhile. No callback is needed.
 *
 *     embed_in_loop MODEL.gguf [BUDGET_US [TOKENS]]
 *
 * Prints the text, and how much time the model took of the frames.
 */
#define _POSIX_C_SOURCE 199309L /* for clock_gettime */
#include <lightgpt.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BARS = 12, WIDTH = 50 };

static void check(int32_t status, const char *what)
{
    if (status < 0) {
        fprintf(stderr, "%s: %s: %s\n", what, lightgpt_status_name(status), lightgpt_last_error());
        exit(EXIT_FAILURE);
    }
}

static double now_us(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e6 + (double)time.tv_nsec / 1e3;
}

/* The program's own work: this one draws what the model has said since the last frame. */
static void draw(const lightgpt_event *event)
{
    if (event->text_bytes > 0)
        fwrite(event->text, 1, (size_t)event->text_bytes, stdout);
}

static void print_histogram(const uint64_t *bars, double bar_us)
{
    uint64_t most = 1;
    for (int i = 0; i < BARS; i++)
        most = bars[i] > most ? bars[i] : most;
    for (int i = 0; i < BARS; i++) {
        printf("%s%6.0f us %6llu ", i + 1 < BARS ? "to  " : "over",
               bar_us * (i + 1 < BARS ? i + 1 : i), (unsigned long long)bars[i]);
        /* Rounded up, so that a single slow frame is seen. */
        for (uint64_t j = 0; j * most < bars[i] * WIDTH; j++)
            putchar('#');
        putchar('\n');
    }
}

int main(int argc, char **argv)
{
    const char *prompt = "Once upon a time";
    uint64_t budget_us = argc > 2 ? strtoull(argv[2], NULL, 10) : 2000;
    uint64_t bars[BARS] = {0}, frames = 0, tokens = 0;
    double worst = 0;
    lightgpt_model *model = NULL;
    lightgpt_session *session = NULL;

    if (argc < 2 || budget_us == 0) {
        fprintf(stderr, "usage: %s MODEL.gguf [BUDGET_US [TOKENS]]\n", argv[0]);
        return EXIT_FAILURE;
    }
    check(lightgpt_model_open(argv[1], NULL, &model), argv[1]);
    check(lightgpt_session_new(model, NULL, NULL, &session), "session");
    check(lightgpt_session_feed_text(session, prompt, strlen(prompt), LIGHTGPT_TEXT_ADD_SPECIAL,
                                     NULL),
          "prompt");
    lightgpt_generate_options options = LIGHTGPT_GENERATE_OPTIONS_INIT;
    options.tokens_max = argc > 3 ? strtoull(argv[3], NULL, 10) : 100;
    check(lightgpt_session_begin(session, &options), "begin");
    printf("%s", prompt);

    /* Half of the bars are frames within the budget. */
    const double bar_us = 2.0 * (double)budget_us / BARS;
    int32_t status = LIGHTGPT_OK;
    while (status != LIGHTGPT_DONE) {
        double start = now_us(), spent = 0;
        /* A frame: step until its budget is spent, or the turn is over. LIGHTGPT_PENDING is a pause
           inside a token or the prompt; the next frame goes on there. */
        do {
            lightgpt_event event = LIGHTGPT_EVENT_INIT;
            status = lightgpt_session_step(session, budget_us - (uint64_t)spent, &event);
            check(status, "step");
            tokens += event.kind == LIGHTGPT_EVENT_TOKEN;
            draw(&event);
            spent = now_us() - start;
        } while (status == LIGHTGPT_OK && spent < (double)budget_us - 1);
        frames++;
        worst = spent > worst ? spent : worst;
        bars[spent < bar_us * (BARS - 1) ? (int)(spent / bar_us) : BARS - 1]++;
    }

    printf("\n\n%llu frames, %llu tokens; budget %llu us, worst frame %.0f us\n",
           (unsigned long long)frames, (unsigned long long)tokens, (unsigned long long)budget_us,
           worst);
    print_histogram(bars, bar_us);
    lightgpt_session_free(session);
    lightgpt_model_free(model);
    return EXIT_SUCCESS;
}
