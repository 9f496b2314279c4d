// stub stands in for TensorFlow Serving behind every server that the benchmark compares. It speaks Predict,
// GetModelMetadata and GetModelStatus over gRPC and really computes two models: half_plus_two (y = x/2 + 2 of floats
// of any shape) and bytes_len (y = length/2 + 2 of strings). A call costs it so little that what a run measures is
// the server in front of it.
//
// Messages are read and written field by field: no generated code, one output buffer a call. Numbers come as
// tensor_content or packed float_val and leave as float_val, as TensorFlow Serving sends them.
package main

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"iter"
	"log"
	"math"
	"net"
	"os"
	"os/signal"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
)

// From tensorflow/core/framework/types.proto and tensorflow_serving/apis/get_model_status.proto.
const (
	dtFloat   = 1
	dtString  = 7
	available = 30
)

const version = 1

func main() {
	socket := flag.String("socket", "", "unix socket to listen on")
	address := flag.String("address", "", "TCP address to listen on")
	flag.Parse()

	server := grpc.NewServer(grpc.ForceServerCodec(asBytes{}), grpc.MaxRecvMsgSize(math.MaxInt32),
		grpc.InitialWindowSize(1<<24), grpc.InitialConnWindowSize(1<<24))
	server.RegisterService(service("PredictionService", methods{"Predict": predict, "GetModelMetadata": metadata}), nil)
	server.RegisterService(service("ModelService", methods{"GetModelStatus": modelStatus}), nil)
	listening := 0
	for network, where := range map[string]string{"unix": *socket, "tcp": *address} {
		if where == "" {
			continue
		}
		os.Remove(*socket) // a dead one's
		listener, err := net.Listen(network, where)
		if err != nil {
			log.Fatal(err)
		}
		go func() { log.Fatal(server.Serve(listener)) }()
		listening++
	}
	if listening == 0 {
		log.Fatal("nowhere to listen: give -socket or -address")
	}
	fmt.Println("listening")
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGINT, syscall.SIGTERM)
	<-ended
}

type methods map[string]func(request []byte) ([]byte, error)

func service(name string, methods methods) *grpc.ServiceDesc {
	desc := &grpc.ServiceDesc{ServiceName: "tensorflow.serving." + name, HandlerType: (*any)(nil)}
	for name, answer := range methods {
		desc.Methods = append(desc.Methods, grpc.MethodDesc{
			MethodName: name,
			Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				var request []byte
				if err := decode(&request); err != nil {
					return nil, err
				}
				return answer(request)
			},
		})
	}
	return desc
}

// asBytes is the codec of a server that reads messages itself.
type asBytes struct{}

func (asBytes) Name() string                       { return "proto" }
func (asBytes) Marshal(v any) ([]byte, error)      { return v.([]byte), nil }
func (asBytes) Unmarshal(data []byte, v any) error { *v.(*[]byte) = data; return nil }

func predict(request []byte) ([]byte, error) {
	var spec, name, tensor []byte
	for number, value := range fields(request) {
		switch number {
		case 1:
			spec = value
		case 2:
			for number, value := range fields(value) {
				switch number {
				case 1:
					name = value
				case 2:
					tensor = value
				}
			}
		}
	}
	if string(name) != "x" {
		return nil, status.Errorf(codes.InvalidArgument, "input %q: the only input is x", name)
	}
	shape, values, err := compute(tensor)
	if err != nil {
		return nil, err
	}
	// outputs { key: "y" value { dtype: DT_FLOAT tensor_shape: … float_val: … } } model_spec: …
	inner := 2 + sizeOf(shape) + sizeOf(values)
	entry := sizeOf([]byte("y")) + 1 + protowire.SizeBytes(inner)
	out := make([]byte, 0, entry+len(spec)+32)
	out = protowire.AppendVarint(append(out, 1<<3|byte(protowire.BytesType)), uint64(entry))
	out = appendBytes(out, 1, []byte("y"))
	out = protowire.AppendVarint(append(out, 2<<3|byte(protowire.BytesType)), uint64(inner))
	out = appendVarint(out, 1, dtFloat)
	out = appendBytes(out, 2, shape)
	out = appendBytes(out, 5, values)
	return appendBytes(out, 2, served(spec)), nil
}

// compute runs the model on an encoded TensorProto; it gives the encoded shape and the little-endian floats of y.
func compute(tensor []byte) (shape, y []byte, err error) {
	var dtype uint64
	var x []byte
	var strings [][]byte
	for number, value := range fields(tensor) {
		switch number {
		case 1:
			dtype, _ = protowire.ConsumeVarint(value)
		case 2:
			shape = value
		case 4, 5:
			x = value
		case 8:
			strings = append(strings, value)
		}
	}
	switch {
	case dtype == dtFloat && len(x) == 4*elements(shape):
		y = make([]byte, len(x))
		for i := 0; i < len(x); i += 4 {
			put(y[i:], math.Float32frombits(binary.LittleEndian.Uint32(x[i:]))/2+2)
		}
	case dtype == dtString && len(strings) == elements(shape):
		y = make([]byte, 4*len(strings))
		for i, s := range strings {
			put(y[4*i:], float32(len(s))/2+2)
		}
	default:
		return nil, nil, status.Errorf(codes.InvalidArgument,
			"dtype %d, %d bytes and %d strings for %d elements", dtype, len(x), len(strings), elements(shape))
	}
	return shape, y, nil
}

func put(to []byte, value float32) { binary.LittleEndian.PutUint32(to, math.Float32bits(value)) }

func elements(shape []byte) int {
	product := 1
	for number, dim := range fields(shape) {
		if number == 2 {
			size := uint64(0)
			for number, value := range fields(dim) {
				if number == 1 {
					size, _ = protowire.ConsumeVarint(value)
				}
			}
			product *= int(size)
		}
	}
	return product
}

func modelStatus([]byte) ([]byte, error) {
	state := appendVarint(appendVarint(nil, 1, version), 2, available)
	return appendBytes(nil, 1, appendBytes(state, 3, nil)), nil
}

func metadata(request []byte) ([]byte, error) {
	var spec, model []byte
	for number, value := range fields(request) {
		if number == 1 {
			spec = value
		}
	}
	for number, value := range fields(spec) {
		if number == 1 {
			model = value
		}
	}
	input := appendBytes(appendVarint(nil, 2, dtFloat), 3, appendVarint(nil, 3, 1)) // unknown rank
	if string(model) == "bytes_len" {
		input = appendBytes(appendVarint(nil, 2, dtString), 3, appendBytes(nil, 2, appendVarint(nil, 1, math.MaxUint64))) // [-1]
	}
	output := appendBytes(appendVarint(nil, 2, dtFloat), 3, appendVarint(nil, 3, 1))
	signature := appendBytes(nil, 1, entry("x", input))
	signature = appendBytes(signature, 2, entry("y", output))
	signature = appendBytes(signature, 3, []byte("tensorflow/serving/predict"))
	signatures := appendBytes(nil, 1, entry("serving_default", signature))
	packed := appendBytes(nil, 1, []byte("type.googleapis.com/tensorflow.serving.SignatureDefMap"))
	packed = appendBytes(packed, 2, signatures)
	return appendBytes(appendBytes(nil, 1, served(spec)), 2, entry("signature_def", packed)), nil
}

// served is the ModelSpec of an answer: the one asked for, and the version that answered.
func served(spec []byte) []byte {
	out := append(make([]byte, 0, len(spec)+4), spec...)
	return appendBytes(out, 2, appendVarint(nil, 1, version))
}

func entry(key string, value []byte) []byte {
	return appendBytes(appendBytes(nil, 1, []byte(key)), 2, value)
}

// fields yields the fields of a message: length-delimited ones without their length, others as they are encoded.
// A malformed message ends early, and the caller then misses what it needs.
func fields(message []byte) iter.Seq2[protowire.Number, []byte] {
	return func(yield func(protowire.Number, []byte) bool) {
		for len(message) > 0 {
			number, kind, head := protowire.ConsumeTag(message)
			if head < 0 {
				return
			}
			size := protowire.ConsumeFieldValue(number, kind, message[head:])
			if size < 0 {
				return
			}
			value := message[head : head+size]
			if kind == protowire.BytesType {
				value, _ = protowire.ConsumeBytes(value)
			}
			if !yield(number, value) {
				return
			}
			message = message[head+size:]
		}
	}
}

func appendBytes(to []byte, number protowire.Number, value []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(to, number, protowire.BytesType), value)
}

func appendVarint(to []byte, number protowire.Number, value uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(to, number, protowire.VarintType), value)
}

func sizeOf(value []byte) int { return 1 + protowire.SizeBytes(len(value)) }
