#include "app_info.h"

_Static_assert(sizeof(struct app_info) == 76, "the descriptor's layout is fixed");
_Static_assert(sizeof(APP_NAME) <= sizeof(app_info.name), "APP_NAME: at most 15 characters");
_Static_assert(sizeof(APP_VERSION) <= sizeof(app_info.version),
               "APP_VERSION: at most 15 characters");
_Static_assert(sizeof(APP_BUILD_ID) <= sizeof(app_info.build_id),
               "APP_BUILD_ID: at most 31 characters");

__attribute__((section(".app_info"), used)) const struct app_info app_info = {
    .magic = {'O', 'T', 'A', 'S', 'I', 'M', 'A', 'I'},
    .struct_size = sizeof(struct app_info),
    .name = APP_NAME,
    .version = APP_VERSION,
    .build_id = APP_BUILD_ID,
};
