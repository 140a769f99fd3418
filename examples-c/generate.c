/*
 * Streams text from a model: the program to start from.
 *
 *     generate MODEL.gguf [PROMPT [TOKENS [SEED]]]
 *
 * The same seed gives the same text; TOKENS 0 goes on until the model ends its text or the
 * session is full.
 */
#include <lightgpt.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Every call answers a status. Below zero it is an error, and lightgpt_last_error tells more. */
static void check(int32_t status, const char *what)
{
    if (status < 0) {
        fprintf(stderr, "%s: %s: %s\n", what, lightgpt_status_name(status), lightgpt_last_error());
        exit(EXIT_FAILURE);
    }
}

/* Called for everything that happens while the text is made. */
static int32_t on_event(void *user_data, const lightgpt_event *event)
{
    (void)user_data;
    /* The text is a pointer and a length; pieces are whole UTF-8 characters. */
    if (event->text_bytes > 0) {
        fwrite(event->text, 1, (size_t)event->text_bytes, stdout);
        fflush(stdout);
    }
    return LIGHTGPT_CONTINUE; /* LIGHTGPT_STOP would end the text here, LIGHTGPT_CANCEL undo it */
}

int main(int argc, char **argv)
{
    const char *prompt = argc > 2 ? argv[2] : "Once upon a time";
    lightgpt_model *model = NULL;
    lightgpt_sampler *sampler = NULL;
    lightgpt_session *session = NULL;
    uint64_t seed = 0;

    if (argc < 2) {
        fprintf(stderr, "usage: %s MODEL.gguf [PROMPT [TOKENS [SEED]]]\n", argv[0]);
        return EXIT_FAILURE;
    }

    /* The file is mapped into memory, not read: this takes milliseconds for any size. */
    check(lightgpt_model_open(argv[1], NULL, &model), argv[1]);

    /* Options begin with their _INIT macro; what is not set keeps its default. */
    lightgpt_sampler_options choice = LIGHTGPT_SAMPLER_OPTIONS_INIT;
    if (argc > 4) {
        choice.flags = LIGHTGPT_SAMPLER_SEED;
        choice.seed = strtoull(argv[4], NULL, 10);
    }
    check(lightgpt_sampler_new(&choice, &sampler), "sampler");
    check(lightgpt_sampler_seed(sampler, &seed), "seed");

    /* A session is one text. Without a team of threads it makes its own. */
    check(lightgpt_session_new(model, NULL, NULL, &session), "session");
    check(lightgpt_session_feed_text(session, prompt, strlen(prompt), LIGHTGPT_TEXT_ADD_SPECIAL,
                                     NULL),
          "prompt");

    /* The events bring what the model adds; the prompt is ours to show. */
    printf("%s", prompt);
    lightgpt_generate_options options = LIGHTGPT_GENERATE_OPTIONS_INIT;
    options.sampler = sampler;
    options.tokens_max = argc > 3 ? strtoull(argv[3], NULL, 10) : 0;
    check(lightgpt_session_generate(session, &options, on_event, NULL), "generate");

    lightgpt_metrics metrics = LIGHTGPT_METRICS_INIT;
    check(lightgpt_session_metrics(session, &metrics), "metrics");
    printf("\n");
    fprintf(stderr, "\n[%llu prompt tokens in %.1f ms; %llu tokens, %.0f a second; seed %llu]\n",
            (unsigned long long)metrics.prompt_tokens, (double)metrics.prompt_us / 1e3,
            (unsigned long long)metrics.generated_tokens,
            metrics.generate_us > 0
                ? 1e6 * (double)metrics.generated_tokens / (double)metrics.generate_us
                : 0.0,
            (unsigned long long)seed);

    /* In any order; what a session needs stays until the session goes. */
    lightgpt_session_free(session);
    lightgpt_sampler_free(sampler);
    lightgpt_model_free(model);
    return EXIT_SUCCESS;
}
