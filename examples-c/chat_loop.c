/*
 * Talks: reads lines, answers each, and keeps the session, so that the model remembers.
 *
 *     chat_loop MODEL.gguf [TOKENS [SEED]]
 *
 * An answer ends with the model's end token, with a line break, or after TOKENS (100). Lines and
 * answers are plain text, one after the other. When the session is full it forgets everything.
 */
#include <lightgpt.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    if (event->text_bytes > 0) {
        fwrite(event->text, 1, (size_t)event->text_bytes, stdout);
        fflush(stdout);
    }
    return LIGHTGPT_CONTINUE;
}

/* Appends the line and answers it; a full session begins anew. What fails is told and left out. */
static void answer(const lightgpt_model *model, lightgpt_session *session,
                   const lightgpt_generate_options *options, const char *line)
{
    lightgpt_metrics metrics = LIGHTGPT_METRICS_INIT;
    size_t needed = 0, bytes = strlen(line);

    /* Only counts the tokens; what is wrong with the text, feeding it tells below. */
    (void)lightgpt_model_tokenize(model, line, bytes, LIGHTGPT_TEXT_ADD_SPECIAL, NULL, 0, &needed);
    check(lightgpt_session_metrics(session, &metrics), "metrics");
    if (needed >= metrics.context) {
        fprintf(stderr, "[left out: a line of so many tokens never fits]\n");
        return;
    }
    uint64_t before = metrics.tokens;
    if (needed >= metrics.context - before) {
        fprintf(stderr, "[the session is full: it forgets]\n");
        check(lightgpt_session_rewind(session, 0), "rewind");
        before = 0;
    }
    uint32_t flags = before == 0 ? LIGHTGPT_TEXT_ADD_SPECIAL : 0;
    int32_t status = lightgpt_session_feed_text(session, line, bytes, flags, NULL);
    if (status >= 0)
        status = lightgpt_session_generate(session, options, on_event, NULL);
    if (status < 0) {
        fprintf(stderr, "%s: %s\n", lightgpt_status_name(status), lightgpt_last_error());
        check(lightgpt_session_rewind(session, before), "rewind");
    }
    printf("\n");
}

int main(int argc, char **argv)
{
    static const char *const stops[] = {"\n"};
    lightgpt_model *model = NULL;
    lightgpt_sampler *sampler = NULL;
    lightgpt_session *session = NULL;
    char line[4096];

    if (argc < 2) {
        fprintf(stderr, "usage: %s MODEL.gguf [TOKENS [SEED]]\n", argv[0]);
        return EXIT_FAILURE;
    }
    check(lightgpt_model_open(argv[1], NULL, &model), argv[1]);
    check(lightgpt_session_new(model, NULL, NULL, &session), "session");

    lightgpt_sampler_options choice = LIGHTGPT_SAMPLER_OPTIONS_INIT;
    choice.min_p = 0.05f;
    choice.dry_multiplier = 0.8f; /* long talks tend to repeat themselves */
    if (argc > 3) {
        choice.flags = LIGHTGPT_SAMPLER_SEED;
        choice.seed = strtoull(argv[3], NULL, 10);
    }
    check(lightgpt_sampler_new(&choice, &sampler), "sampler");

    lightgpt_generate_options options = LIGHTGPT_GENERATE_OPTIONS_INIT;
    options.sampler = sampler;
    options.tokens_max = argc > 2 ? strtoull(argv[2], NULL, 10) : 100;
    options.stops = stops;
    options.stops_len = 1;

    while (fgets(line, sizeof line, stdin) != NULL) {
        size_t length = strcspn(line, "\n");
        if (length + 1 == sizeof line) {
            for (int c = 0; c != '\n' && c != EOF;)
                c = getchar();
            fprintf(stderr, "[left out: a line has less than %zu bytes]\n", length);
            continue;
        }
        line[length] = '\0';
        if (length > 0)
            answer(model, session, &options, line);
    }
    printf("\n");

    lightgpt_session_free(session);
    lightgpt_sampler_free(sampler);
    lightgpt_model_free(model);
    return EXIT_SUCCESS;
}
