# Programs to run under dsmexec, each about one idea. (calls_c.c and calls.cpp, an example for each call of the API, are
# compiled by library_test, as a user would.)
examples_stand_on := node pager net core telemetry ipc06 ipc04 ipc03 ipc02 ipc01
examples_link := -lsodium -lboost_program_options

$(eval $(call program,hello,dsm/examples/hello.cpp,$(examples_stand_on),$(examples_link)))
$(eval $(call program,double_touch,dsm/examples/double_touch.cpp,$(examples_stand_on),$(examples_link)))
$(eval $(call program,data_exchange,dsm/examples/data_exchange.cpp,ipc06,-lboost_program_options))
$(eval $(call program,demo,$(addprefix dsm/examples/,demo.cpp stage.cpp acts.cpp picture.cpp),$(examples_stand_on),$(examples_link)))

# One file each, with a body that verifies itself: example.hpp.
examples_computing := jacobi sor matmul lu tsp quicksort mandelbrot life word_count pingpong pi
$(foreach e,$(examples_computing),$(eval $(call program,$(e),dsm/examples/$(e).cpp,$(examples_stand_on),$(examples_link))))

$(OBJ)/dsm/examples/picture.o: dsm/examples/picture.pgm

# Plain System V: nothing of ours is linked.
$(eval $(call program,dshm_example,dsm/examples/dshm_example.c,,))
