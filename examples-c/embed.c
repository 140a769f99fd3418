/*
 * Finds the sentences that are nearest in meaning to a query.
 *
 *     embed MODEL.gguf QUERY SENTENCE...
 *
 * Any model will do; one made for embeddings does best. One made to rank scores the sentences
 * instead, each beside the query.
 */
#include <lightgpt.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *text;
    double score;
} sentence;

static void check(int32_t status, const char *what)
{
    if (status < 0) {
        fprintf(stderr, "%s: %s: %s\n", what, lightgpt_status_name(status), lightgpt_last_error());
        exit(EXIT_FAILURE);
    }
}

/* `width` numbers, which add up to length 1. */
static void embed(lightgpt_session *session, const char *text, float *numbers, size_t width)
{
    size_t needed = 0;
    check(lightgpt_session_embed(session, text, strlen(text), LIGHTGPT_TEXT_ADD_SPECIAL, NULL,
                                 numbers, width, &needed),
          text);
}

/* How near two embeddings are: 1 is the same direction. */
static double product(const float *a, const float *b, size_t width)
{
    double sum = 0.0;
    for (size_t i = 0; i < width; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

static int by_score(const void *a, const void *b)
{
    double x = ((const sentence *)a)->score, y = ((const sentence *)b)->score;
    return (x < y) - (x > y);
}

int main(int argc, char **argv)
{
    lightgpt_model *model = NULL;
    lightgpt_session *session = NULL;
    lightgpt_model_info info = LIGHTGPT_MODEL_INFO_INIT;

    if (argc < 4) {
        fprintf(stderr, "usage: %s MODEL.gguf QUERY SENTENCE...\n", argv[0]);
        return EXIT_FAILURE;
    }
    check(lightgpt_model_open(argv[1], NULL, &model), argv[1]);
    check(lightgpt_model_describe(model, &info), "describe");
    check(lightgpt_session_new(model, NULL, NULL, &session), "session");

    const char *query = argv[2];
    size_t count = (size_t)argc - 3, width = (size_t)info.embedding;
    sentence *all = calloc(count, sizeof *all);
    float *numbers = calloc(2 * width, sizeof *numbers);
    if (all == NULL || numbers == NULL)
        return EXIT_FAILURE;

    int ranks = info.pooling == LIGHTGPT_POOLING_RANK && info.scores == 1;
    if (!ranks)
        embed(session, query, numbers, width);
    for (size_t i = 0; i < count; i++) {
        all[i].text = argv[i + 3];
        if (ranks) {
            float score = 0.0f;
            size_t needed = 0;
            check(lightgpt_session_rerank(session, query, strlen(query), all[i].text,
                                          strlen(all[i].text), &score, 1, &needed),
                  all[i].text);
            all[i].score = (double)score;
        } else {
            embed(session, all[i].text, numbers + width, width);
            all[i].score = product(numbers, numbers + width, width);
        }
    }

    qsort(all, count, sizeof *all, by_score);
    for (size_t i = 0; i < count; i++)
        printf("%8.4f  %s\n", all[i].score, all[i].text);

    free(numbers);
    free(all);
    lightgpt_session_free(session);
    lightgpt_model_free(model);
    return EXIT_SUCCESS;
}
