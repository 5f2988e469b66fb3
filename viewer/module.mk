# dsmtop. The library is everything but main(), the terminal and the command line, so that tests need no terminal.
$(eval $(call library,viewer,$(addprefix viewer/,grid.cpp model.cpp text.cpp json.cpp layout.cpp view.cpp panes.cpp map.cpp render.cpp session.cpp options.cpp)))
$(eval $(call program,dsmtop,$(addprefix viewer/,main.cpp print.cpp shell.cpp),viewer telemetry ipc02 ipc06 ipc01,-lncursesw -ltinfo -lboost_program_options -lfmt))
$(eval $(call test,viewer_test,$(addprefix viewer/,grid_test.cpp model_test.cpp render_test.cpp view_test.cpp json_test.cpp session_test.cpp options_test.cpp),viewer telemetry ipc02 ipc06,-lboost_program_options -lfmt))
$(eval $(call test,dsmtop_run_test,viewer/run_test.cpp viewer/pseudo_terminal_test.cpp,viewer telemetry ipc02 ipc04 ipc06,-lutil -lfmt,dsmtop))
