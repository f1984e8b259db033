/*
 * The application descriptor: what an image says about itself.
 *
 * It stands right behind the vector table (section .app_info), 4-byte aligned, so that a boot
 * loader or a host tool finds it by looking for the magic at every fourth byte of the image's first
 * 4 KB.
 *
 *   offset  size  field
 *        0     8  magic        "OTASIMAI", no NUL
 *        8     4  struct_size  little-endian, 76 here; more if fields are ever added behind
 *       12    16  name         ASCII, at least one character
 *       28    16  version      ASCII, at least one character
 *       44    32  build_id     ASCII, may be empty
 *
 * The three texts are printable ASCII, ended by a NUL and padded with NULs to their field's size.
 */
#ifndef APP_INFO_H
#define APP_INFO_H

#include <stdint.h>

struct app_info {
    char magic[8];
    uint32_t struct_size;
    char name[16];
    char version[16];
    char build_id[32];
};

extern const struct app_info app_info;

#endif
