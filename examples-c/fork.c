/*
 * Tells one beginning ten ways: the beginning is evaluated once, and each ending goes on from a
 * fork of it.
 *
 *     fork MODEL.gguf [PROMPT [TOKENS [SEED]]]
 */
#include <lightgpt.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ENDINGS 10

static void check(int32_t status, const char *what)
{
    if (status < 0) {
        fprintf(stderr, "%s: %s: %s\n", what, lightgpt_status_name(status), lightgpt_last_error());
        exit(EXIT_FAILURE);
    }
}

static int32_t on_event(void *user_data, const lightgpt_event *event)
{
    (void)user_data;
    if (event->text_bytes > 0)
        fwrite(event->text, 1, (size_t)event->text_bytes, stdout);
    return LIGHTGPT_CONTINUE;
}

int main(int argc, char **argv)
{
    const char *prompt = argc > 2 ? argv[2] : "Once upon a time there was a little dog who";
    uint64_t seed = argc > 4 ? strtoull(argv[4], NULL, 10) : 1;
    lightgpt_model *model = NULL;
    lightgpt_session *beginning = NULL;

    if (argc < 2) {
        fprintf(stderr, "usage: %s MODEL.gguf [PROMPT [TOKENS [SEED]]]\n", argv[0]);
        return EXIT_FAILURE;
    }
    check(lightgpt_model_open(argv[1], NULL, &model), argv[1]);
    check(lightgpt_session_new(model, NULL, NULL, &beginning), "session");
    check(lightgpt_session_feed_text(beginning, prompt, strlen(prompt), LIGHTGPT_TEXT_ADD_SPECIAL,
                                     NULL),
          "prompt");
    /* What is evaluated before the fork, the forks need not evaluate again. */
    check(lightgpt_session_prefill(beginning, 0), "prefill");

    for (uint64_t i = 0; i < ENDINGS; i++) {
        lightgpt_session *ending = NULL;
        lightgpt_sampler *sampler = NULL;
        lightgpt_metrics metrics = LIGHTGPT_METRICS_INIT;

        /* A fork shares the memory of the beginning, and takes its own only for what it adds. */
        check(lightgpt_session_fork(beginning, &ending), "fork");

        lightgpt_sampler_options choice = LIGHTGPT_SAMPLER_OPTIONS_INIT;
        choice.flags = LIGHTGPT_SAMPLER_SEED;
        choice.seed = seed + i;
        check(lightgpt_sampler_new(&choice, &sampler), "sampler");

        lightgpt_generate_options options = LIGHTGPT_GENERATE_OPTIONS_INIT;
        options.sampler = sampler;
        options.tokens_max = argc > 3 ? strtoull(argv[3], NULL, 10) : 30;
        printf("%llu. %s", (unsigned long long)(i + 1), prompt);
        check(lightgpt_session_generate(ending, &options, on_event, NULL), "generate");
        check(lightgpt_session_metrics(ending, &metrics), "metrics");
        printf("\n   [%llu tokens, of which %llu were made here]\n",
               (unsigned long long)metrics.tokens, (unsigned long long)metrics.generated_tokens);

        lightgpt_sampler_free(sampler);
        lightgpt_session_free(ending);
    }

    lightgpt_session_free(beginning);
    lightgpt_model_free(model);
    return EXIT_SUCCESS;
}
