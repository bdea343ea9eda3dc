// What AWS's client for Go is asked to do: it knows nothing of Martlet.
package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
)

func handle(ctx context.Context, request events.LambdaFunctionURLRequest) (*events.LambdaFunctionURLResponse, error) {
	invocation, _ := lambdacontext.FromContext(ctx)
	if request.RawPath == "/raise" {
		return nil, errors.New("the reason ✗")
	}
	fmt.Println("serving", invocation.AwsRequestID)
	return &events.LambdaFunctionURLResponse{
		StatusCode: 201,
		Headers:    map[string]string{"content-type": "text/plain; charset=utf-8", "x-id": invocation.AwsRequestID},
		Body:       request.QueryStringParameters["name"] + " ✓ " + request.Body,
	}, nil
}

func main() {
	lambda.Start(handle)
}
