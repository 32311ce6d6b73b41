import { Message, Role } from "./generated/pointsman/v1/chat.js";

/** A turn of the person or program that asks. */
export function user(text: string): Message {
  return textMessage(Role.USER, text);
}

/** Instructions of the application. */
export function system(text: string): Message {
  return textMessage(Role.SYSTEM, text);
}

function textMessage(role: Role, text: string): Message {
  return Message.fromPartial({ role, parts: [{ content: { $case: "text", value: { text } } }] });
}
