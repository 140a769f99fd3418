/*
 * Tells a story that goes on from run to run: each run restores the session that the last one saved,
 * adds some tokens, and saves it again.
 *
 *     save MODEL.gguf FILE [TOKENS]
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
    if (event->text_bytes > 0)
        fwrite(event->text, 1, (size_t)event->text_bytes, stdout);
    return LIGHTGPT_CONTINUE;
}

int main(int argc, char **argv)
{
    const char *beginning = "Once upon a time";
    lightgpt_model *model = NULL;
    lightgpt_session *session = NULL;
    lightgpt_sampler *sampler = NULL;

    if (argc < 3) {
        fprintf(stderr, "usage: %s MODEL.gguf FILE [TOKENS]\n", argv[0]);
        return EXIT_FAILURE;
    }
    check(lightgpt_model_open(argv[1], NULL, &model), argv[1]);

    /* A file that is damaged, or was saved with another model, is an error with a reason; a file
     * that is not there begins a new story. */
    FILE *file = fopen(argv[2], "rb");
    if (file != NULL) {
        fclose(file);
        check(lightgpt_session_restore(model, NULL, NULL, argv[2], &session), "restore");
    } else {
        check(lightgpt_session_new(model, NULL, NULL, &session), "session");
        check(lightgpt_session_feed_text(session, beginning, strlen(beginning),
                                         LIGHTGPT_TEXT_ADD_SPECIAL, NULL),
              "feed");
        printf("%s", beginning);
    }

    lightgpt_sampler_options choice = LIGHTGPT_SAMPLER_OPTIONS_INIT;
    choice.flags = LIGHTGPT_SAMPLER_SEED;
    choice.seed = 7;
    check(lightgpt_sampler_new(&choice, &sampler), "sampler");
    lightgpt_generate_options options = LIGHTGPT_GENERATE_OPTIONS_INIT;
    options.sampler = sampler;
    options.tokens_max = argc > 3 ? strtoull(argv[3], NULL, 10) : 20;
    options.flags = LIGHTGPT_GENERATE_IGNORE_END;
    check(lightgpt_session_generate(session, &options, on_event, NULL), "generate");
    printf("\n");

    check(lightgpt_session_save(session, argv[2], 0), "save");
    lightgpt_sampler_free(sampler);
    lightgpt_session_free(session);
    lightgpt_model_free(model);
    return EXIT_SUCCESS;
}
