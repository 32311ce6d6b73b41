// Asks where a prompt should go.
#include <chrono>
#include <iomanip>
#include <iostream>

#include <grpcpp/grpcpp.h>

#include "pointsman/v1/router_service.grpc.pb.h"

namespace v1 = pointsman::v1;

int main(int argc, char** argv) {
  const auto channel = grpc::CreateChannel(argc > 1 ? argv[1] : "127.0.0.1:50061", grpc::InsecureChannelCredentials());
  const auto router = v1::RouterService::NewStub(channel);

  v1::RouteRequest request;
  v1::Message* message = request.mutable_conversation()->add_messages();
  message->set_role(v1::ROLE_USER);
  message->add_parts()->mutable_text()->set_text("What is 17 * 23?");
  request.mutable_routing()->set_router("router@q:1|rc:5|c<2");

  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
  v1::RouteResponse response;
  const grpc::Status status = router->Route(&context, request, &response);
  if (!status.ok()) {
    std::cerr << status.error_code() << ": " << status.error_message() << "\n";
    return 1;
  }
  for (const v1::Candidate& candidate : response.decision().candidates()) {
    if (candidate.rank() > 0) {
      std::cout << candidate.rank() << ". " << candidate.endpoint() << ", quality " << std::fixed
                << std::setprecision(2) << candidate.quality().mean() << "\n";
    }
  }
  return 0;
}
