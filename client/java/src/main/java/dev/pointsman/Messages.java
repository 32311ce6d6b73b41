package dev.pointsman;

import dev.pointsman.v1.Conversation;
import dev.pointsman.v1.Message;
import dev.pointsman.v1.Part;
import dev.pointsman.v1.Role;
import dev.pointsman.v1.TextPart;
import java.util.List;

/** Short ways to write a conversation. */
public final class Messages {
  private Messages() {}

  /** A turn of the person or program that asks. */
  public static Message user(String text) {
    return textMessage(Role.ROLE_USER, text);
  }

  /** Instructions of the application. */
  public static Message system(String text) {
    return textMessage(Role.ROLE_SYSTEM, text);
  }

  /** What the model is asked. */
  public static Conversation conversation(Message... messages) {
    return Conversation.newBuilder().addAllMessages(List.of(messages)).build();
  }

  private static Message textMessage(Role role, String text) {
    Part part = Part.newBuilder().setText(TextPart.newBuilder().setText(text)).build();
    return Message.newBuilder().setRole(role).addParts(part).build();
  }
}
