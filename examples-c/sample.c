/*
 * Chooses tokens with a stage of its own: the text must do without some letters (a lipogram).
 *
 *     sample MODEL.gguf [PROMPT [LETTERS]]
 *
 * Then it checks that a sampler chooses as often as its distribution says, and tells how varied the
 * text is.
 */
#include <lightgpt.h>

#include <math.h>
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

/* What the stage works with. */
struct lipogram {
    const lightgpt_model *model;
    const char *letters;
    uint64_t seen, excluded;
};

/* Called for each token that is chosen, with the candidates that the stages before it have left. */
static int32_t without_letters(void *user_data, lightgpt_candidates *candidates)
{
    struct lipogram *lipogram = user_data;
    for (uint64_t i = 0; i < candidates->len; i++) {
        char text[128];
        size_t bytes = 0;
        int32_t status = lightgpt_model_token_text(lipogram->model, candidates->tokens[i], text,
                                                   sizeof text - 1, &bytes);
        text[status < 0 ? 0 : bytes] = '\0';
        lipogram->seen++;
        if (status < 0 || strpbrk(text, lipogram->letters) != NULL) {
            candidates->logits[i] = -INFINITY;
            lipogram->excluded++;
        }
    }
    return LIGHTGPT_CONTINUE; /* LIGHTGPT_CHOOSE would take the token number candidates->chosen */
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
    const char *prompt = argc > 2 ? argv[2] : "Once upon a time";
    struct lipogram lipogram = {NULL, argc > 3 ? argv[3] : "eE", 0, 0};
    lightgpt_model *model = NULL;
    lightgpt_sampler *sampler = NULL;
    lightgpt_session *session = NULL;

    if (argc < 2) {
        fprintf(stderr, "usage: %s MODEL.gguf [PROMPT [LETTERS]]\n", argv[0]);
        return EXIT_FAILURE;
    }
    check(lightgpt_model_open(argv[1], NULL, &model), argv[1]);
    lipogram.model = model;

    lightgpt_sampler_options options = LIGHTGPT_SAMPLER_OPTIONS_INIT;
    options.flags = LIGHTGPT_SAMPLER_SEED | LIGHTGPT_SAMPLER_TOP_K;
    options.seed = 1;
    options.top_k = 0; /* off: what is left is cut by top-p, behind our stage */
    check(lightgpt_sampler_new(&options, &sampler), "sampler");
    check(lightgpt_sampler_add_stage(sampler, LIGHTGPT_STAGE_TOP_P, without_letters, &lipogram,
                                     NULL),
          "stage");

    check(lightgpt_session_new(model, NULL, NULL, &session), "session");
    check(lightgpt_session_feed_text(session, prompt, strlen(prompt), LIGHTGPT_TEXT_ADD_SPECIAL,
                                     NULL),
          "prompt");
    lightgpt_generate_options turn = LIGHTGPT_GENERATE_OPTIONS_INIT;
    turn.sampler = sampler; /* a copy works with the same lipogram */
    turn.tokens_max = 40;
    printf("%s", prompt);
    check(lightgpt_session_generate(session, &turn, on_event, NULL), "generate");
    printf("\n\n%llu of %llu candidates excluded\n", (unsigned long long)lipogram.excluded,
           (unsigned long long)lipogram.seen);

    uint32_t buf[512];
    size_t count = 0;
    check(lightgpt_session_tokens(session, buf, 512, &count), "tokens");
    lightgpt_tokens text = {buf, count};
    lightgpt_diversity diversity = LIGHTGPT_DIVERSITY_INIT;
    check(lightgpt_diversity_measure(&text, 1, 2, &diversity), "diversity");
    printf("pairs of tokens: %.2f distinct, %.2f bits\n", diversity.distinct, diversity.entropy);

    const float logits[] = {0.0f, 1.0f, 2.0f, 3.0f};
    lightgpt_sampler *plain = NULL;
    lightgpt_chi_square found = LIGHTGPT_CHI_SQUARE_INIT;
    check(lightgpt_sampler_new(&options, &plain), "sampler");
    check(lightgpt_sampler_check(plain, logits, 4, NULL, 0, 100000, &found), "check");
    printf("chi-square %.2f with %llu degrees of freedom, p %.3f\n", found.statistic,
           (unsigned long long)found.degrees, found.p_value);

    lightgpt_sampler_free(plain);
    lightgpt_session_free(session);
    lightgpt_sampler_free(sampler);
    lightgpt_model_free(model);
    return EXIT_SUCCESS;
}
