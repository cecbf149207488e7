/* 64-bit code in user mode: on hosts that emulate ring 0, the only code that runs natively. */
#ifndef GUESTS_USER64_H
#define GUESTS_USER64_H

/*
 * Go on at privilege level 3, with the same stack and interrupts off. IN and OUT still work, for every port; HLT, CLI
 * and STI do not. There is no way back, and an exception finds no handler.
 */
void enter_user_mode(void);

#endif
