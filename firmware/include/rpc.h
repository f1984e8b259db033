/*
 * An RPC service of the firmware's own on the console's line, for the variant own-rpc: JSON frames
 * as the host tools of Mongoose OS send them. Everything else on the line is for the console.
 */
#ifndef RPC_H
#define RPC_H

/* 1: the application has this service. Without it whoever runs the board must offer one. */
#ifndef OWN_RPC
#define OWN_RPC 0
#endif

/* Take a received byte: part of a frame, which is answered when complete, or for the console. */
void rpc_take_byte(char byte, void (*to_console)(char));

#endif
