// Streams an answer.
#include <chrono>
#include <iomanip>
#include <iostream>

#include <grpcpp/grpcpp.h>

#include "pointsman/v1/router_service.grpc.pb.h"

namespace v1 = pointsman::v1;

int main(int argc, char** argv) {
  const auto channel = grpc::CreateChannel(argc > 1 ? argv[1] : "127.0.0.1:50061", grpc::InsecureChannelCredentials());
  const auto router = v1::RouterService::NewStub(channel);

  v1::CompleteRequest request;
  v1::Message* message = request.mutable_conversation()->add_messages();
  message->set_role(v1::ROLE_USER);
  message->add_parts()->mutable_text()->set_text("Write a haiku about trains.");

  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
  const auto answer = router->Complete(&context, request);
  v1::CompleteResponse event;
  while (answer->Read(&event)) {
    if (event.has_attempt_started()) {
      std::cout << "-> " << event.attempt_started().endpoint() << "\n";
    } else if (event.has_delta()) {
      std::cout << event.delta().text() << std::flush;
    } else if (event.has_done()) {
      std::cout << "\n" << event.done().endpoint() << ", $" << std::fixed << std::setprecision(6)
                << event.done().cost_usd() << "\n";
    }
  }
  const grpc::Status status = answer->Finish();
  if (!status.ok()) {
    std::cerr << status.error_code() << ": " << status.error_message() << "\n";
    return 1;
  }
  return 0;
}
