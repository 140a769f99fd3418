/*
 * Shows what a model is and how it cuts a text into tokens.
 *
 *     tokens MODEL.gguf [TEXT]
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

static void show_model(const lightgpt_model *model)
{
    lightgpt_model_info info = LIGHTGPT_MODEL_INFO_INIT;
    check(lightgpt_model_describe(model, &info), "describe");
    printf("%s: %s, %llu layers, %llu wide, %llu tokens of context, %.1f MB\n", info.name,
           info.architecture, (unsigned long long)info.layers, (unsigned long long)info.dim,
           (unsigned long long)info.context, (double)info.file_bytes / 1e6);

    /* What is in the file beyond that: any metadata key ... */
    char value[64];
    size_t bytes = 0;
    int32_t status = lightgpt_model_metadata_text(model, "tokenizer.ggml.model", value,
                                                  sizeof value, &bytes);
    if (status != LIGHTGPT_NOT_FOUND) {
        check(status, "metadata");
        printf("tokenizer: %.*s, %llu tokens\n", (int)bytes, value,
               (unsigned long long)info.vocab);
    }
    /* ... and any tensor. */
    for (uint64_t i = 0; i < info.tensors && i < 3; i++) {
        lightgpt_tensor_info tensor = LIGHTGPT_TENSOR_INFO_INIT;
        check(lightgpt_model_tensor_describe(model, i, &tensor), "tensor");
        printf("tensor %llu: %s, %s, %llu x %llu\n", (unsigned long long)i, tensor.name,
               tensor.format_name, (unsigned long long)tensor.dims[1],
               (unsigned long long)tensor.dims[0]);
    }
}

int main(int argc, char **argv)
{
    const char *text = argc > 2 ? argv[2] : "Once upon a time";
    lightgpt_model *model = NULL;

    if (argc < 2) {
        fprintf(stderr, "usage: %s MODEL.gguf [TEXT]\n", argv[0]);
        return EXIT_FAILURE;
    }
    check(lightgpt_model_open(argv[1], NULL, &model), argv[1]);
    show_model(model);

    /* Results of unknown size: ask for the size, make room, ask again. */
    size_t count = 0;
    check(lightgpt_model_tokenize(model, text, strlen(text), LIGHTGPT_TEXT_ADD_SPECIAL, NULL, 0,
                                  &count),
          "tokenize");
    uint32_t *tokens = malloc((count > 0 ? count : 1) * sizeof *tokens);
    if (tokens == NULL)
        return EXIT_FAILURE;
    check(lightgpt_model_tokenize(model, text, strlen(text), LIGHTGPT_TEXT_ADD_SPECIAL, tokens,
                                  count, &count),
          "tokenize");

    printf("\n%s\n%llu tokens:\n", text, (unsigned long long)count);
    for (size_t i = 0; i < count; i++) {
        char spelling[256];
        size_t bytes = 0;
        uint32_t attributes = 0;
        check(lightgpt_model_token_text(model, tokens[i], spelling, sizeof spelling, &bytes),
              "token");
        check(lightgpt_model_token_attributes(model, tokens[i], &attributes), "token");
        printf("%8u  \"%.*s\"%s%s\n", (unsigned)tokens[i], (int)bytes, spelling,
               attributes & LIGHTGPT_TOKEN_CONTROL ? "  control" : "",
               attributes & LIGHTGPT_TOKEN_BYTE ? "  byte" : "");
    }

    /* And back again: the control tokens that were added are not shown. */
    size_t bytes = 0;
    uint32_t flags = LIGHTGPT_TEXT_START;
    check(lightgpt_model_detokenize(model, tokens, count, flags, NULL, 0, &bytes), "detokenize");
    char *back = malloc(bytes + 1);
    if (back == NULL)
        return EXIT_FAILURE;
    check(lightgpt_model_detokenize(model, tokens, count, flags, back, bytes, &bytes), "detokenize");
    printf("\n%s\n", bytes == strlen(text) && memcmp(back, text, bytes) == 0
                         ? "They spell the same text."
                         : "They spell another text.");

    free(back);
    free(tokens);
    lightgpt_model_free(model);
    return EXIT_SUCCESS;
}
