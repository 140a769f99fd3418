/*
 * A game with many characters: all are forked from one prompt, which is evaluated once, and speak
 * while the game runs at 60 frames a second. Each frame gives them a budget, which they use in
 * turns; who is in the middle of a token when it is spent goes on there in the next frame.
 *
 * These characters stay and remember: each has a session. Where many texts are wanted once and soon,
 * a batch queue (batch.c) makes more of the same time, also in steps with a budget.
 *
 *     npcs MODEL.gguf [CHARACTERS [BUDGET_US [FRAMES [TOKENS]]]]
 *
 * Prints what they say, and how long the frames took: the characters' part, and all of it.
 */
#define _POSIX_C_SOURCE 200112L /* for clock_nanosleep */
#include <lightgpt.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { FRAME_US = 16667, LATE_US = 300, TEXT_MAX = 1024 };

/* A character: a timeline of its own, a dice of its own, and what it has said. */
struct npc {
    lightgpt_session *session;
    char line[TEXT_MAX];
    int over;
};

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

static void sleep_until(double us)
{
    struct timespec time = {(time_t)(us / 1e6), 0};
    time.tv_nsec = (long)((us - (double)time.tv_sec * 1e6) * 1e3);
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL);
}

static void speak(struct npc *npc, const lightgpt_event *event)
{
    size_t end = strlen(npc->line);
    for (uint64_t i = 0; i < event->text_bytes && end < TEXT_MAX - 1; i++)
        npc->line[end++] = event->text[i] == '\n' ? ' ' : event->text[i];
    npc->over = event->kind == LIGHTGPT_EVENT_FINISHED;
}

/* The game's own work of a frame; this one only counts to a number. */
static void simulate(void)
{
    for (volatile int i = 0; i < 500000; i++) {
    }
}

/* The part of a frame that belongs to the characters; how many tokens they made. One of them works
   until it has a token, then the next one's turn comes. */
static uint64_t characters_turn(struct npc *npcs, uint64_t count, uint64_t *turn, double end)
{
    uint64_t tokens = 0, silent = 0;
    for (double left; silent < count && (left = end - now_us()) >= 1;) {
        struct npc *npc = &npcs[*turn % count];
        lightgpt_event event = LIGHTGPT_EVENT_INIT;
        if (npc->over) {
            silent++;
            ++*turn;
            continue;
        }
        silent = 0;
        check(lightgpt_session_step(npc->session, (uint64_t)left, &event), "step");
        speak(npc, &event);
        tokens += event.kind == LIGHTGPT_EVENT_TOKEN;
        *turn += event.kind == LIGHTGPT_EVENT_TOKEN || npc->over;
    }
    return tokens;
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The bars are parts of `limit`; frames of more than `most` are counted. */
static void print_times(const char *what, double *times, uint64_t len, double limit, double most)
{
    static const double bounds[] = {0.25, 0.5, 0.75, 0.9, 1.0, 1.05, 1.1, 1.25, 1.5, 2};
    enum { BARS = sizeof bounds / sizeof bounds[0] + 1 };
    uint64_t bars[BARS] = {0}, over = 0;
    qsort(times, len, sizeof *times, by_size);
    for (uint64_t i = 0; i < len; i++) {
        int bar = 0;
        while (bar < BARS - 1 && times[i] > bounds[bar] * limit)
            bar++;
        bars[bar]++;
        over += times[i] > most;
    }
    printf("%s: p50 %.0f, p95 %.0f, p99 %.0f, max %.0f us; %llu of %llu frames above %.0f us\n",
           what, times[len / 2], times[len * 95 / 100], times[len * 99 / 100], times[len - 1],
           (unsigned long long)over, (unsigned long long)len, most);
    for (int bar = 0; bar < BARS; bar++) {
        if (bars[bar] == 0)
            continue;
        printf("  %s %5.0f us %6llu ", bar < BARS - 1 ? "to  " : "over",
               bounds[bar < BARS - 1 ? bar : bar - 1] * limit, (unsigned long long)bars[bar]);
        for (uint64_t i = 0; i * len < bars[bar] * 50; i++)
            putchar('#');
        putchar('\n');
    }
}

static uint64_t number(int argc, char **argv, int place, uint64_t otherwise)
{
    return argc > place ? strtoull(argv[place], NULL, 10) : otherwise;
}

/* Forks all characters from one evaluated prompt and lets each begin its turn. */
static void create(const lightgpt_model *model, struct npc *npcs, uint64_t count, uint64_t tokens)
{
    const char *prompt = "The people of the village met at the well. One of them said:";
    lightgpt_session *village = NULL;
    check(lightgpt_session_new(model, NULL, NULL, &village), "session");
    check(lightgpt_session_feed_text(village, prompt, strlen(prompt), LIGHTGPT_TEXT_ADD_SPECIAL,
                                     NULL),
          "prompt");
    check(lightgpt_session_prefill(village, 0), "prefill");
    for (uint64_t i = 0; i < count; i++) {
        lightgpt_sampler *sampler = NULL;
        lightgpt_sampler_options choice = LIGHTGPT_SAMPLER_OPTIONS_INIT;
        lightgpt_generate_options options = LIGHTGPT_GENERATE_OPTIONS_INIT;
        choice.flags = LIGHTGPT_SAMPLER_SEED;
        choice.seed = i + 1;
        choice.min_p = 0.05f;
        check(lightgpt_sampler_new(&choice, &sampler), "sampler");
        options.sampler = sampler;
        options.tokens_max = tokens;
        check(lightgpt_session_fork(village, &npcs[i].session), "fork");
        check(lightgpt_session_begin(npcs[i].session, &options), "begin");
        lightgpt_sampler_free(sampler);
    }
    lightgpt_session_free(village);
}

int main(int argc, char **argv)
{
    const uint64_t count = number(argc, argv, 2, 100), budget_us = number(argc, argv, 3, 4000);
    const uint64_t frames = number(argc, argv, 4, 600), most = number(argc, argv, 5, 40);
    uint64_t turn = 0, tokens = 0;
    lightgpt_model *model = NULL;
    if (argc < 2 || count == 0 || budget_us == 0 || frames == 0) {
        fprintf(stderr, "usage: %s MODEL.gguf [CHARACTERS [BUDGET_US [FRAMES [TOKENS]]]]\n",
                argv[0]);
        return EXIT_FAILURE;
    }
    struct npc *npcs = calloc(count, sizeof *npcs);
    double *turns = calloc(frames, sizeof *turns), *wholes = calloc(frames, sizeof *wholes);
    if (npcs == NULL || turns == NULL || wholes == NULL)
        return EXIT_FAILURE;
    check(lightgpt_model_open(argv[1], NULL, &model), argv[1]);
    create(model, npcs, count, most);

    double tick = now_us();
    for (uint64_t frame = 0; frame < frames; frame++) {
        const double start = now_us();
        simulate();
        const double before = now_us();
        tokens += characters_turn(npcs, count, &turn, before + (double)budget_us);
        const double end = now_us();
        turns[frame] = end - before;
        wholes[frame] = end - start;
        /* Who was late does not hurry afterwards. */
        tick = tick + FRAME_US > end ? tick + FRAME_US : end;
        sleep_until(tick);
    }

    for (uint64_t i = 0; i < count; i++) {
        printf("%llu:%s%s\n", (unsigned long long)(i + 1), npcs[i].line, npcs[i].over ? "" : " ...");
        lightgpt_session_free(npcs[i].session);
    }
    printf("\n%llu characters, %llu tokens in %llu frames\n", (unsigned long long)count,
           (unsigned long long)tokens, (unsigned long long)frames);
    print_times("characters", turns, frames, (double)budget_us, (double)budget_us + LATE_US);
    print_times("whole frame", wholes, frames, FRAME_US, FRAME_US);
    lightgpt_model_free(model);
    free(npcs);
    free(turns);
    free(wholes);
    return EXIT_SUCCESS;
}
