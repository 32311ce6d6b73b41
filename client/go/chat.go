package pointsman

import "github.com/pointsman/pointsman/client/go/pointsmanv1"

// User is a turn of the person or program that asks.
func User(text string) *pointsmanv1.Message {
	return textMessage(pointsmanv1.Role_ROLE_USER, text)
}

// System has the instructions of the application.
func System(text string) *pointsmanv1.Message {
	return textMessage(pointsmanv1.Role_ROLE_SYSTEM, text)
}

func textMessage(role pointsmanv1.Role, text string) *pointsmanv1.Message {
	part := &pointsmanv1.Part{Content: &pointsmanv1.Part_Text{Text: &pointsmanv1.TextPart{Text: text}}}
	return &pointsmanv1.Message{Role: role, Parts: []*pointsmanv1.Part{part}}
}
