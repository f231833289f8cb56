! Linear shallow-water waves over real depths, shared among MPI ranks.
!
! eta_t = -(h u)_x - (h v)_y,  u_t = -g eta_x,  v_t = -g eta_y, on a staggered grid (Arakawa C), forward in eta and
! backward in u, v. The coast and the edges of the map are walls. Rows are dealt out to the ranks; before each step a
! rank gets the row beyond its own from each neighbour. Every cell is computed by the same operations in the same order
! whoever owns it, so the result does not depend on the number of ranks by a single bit.
program tsunami
  use mpi_f08
  use, intrinsic :: iso_fortran_env, only: real32, real64
  implicit none

  real(real64), parameter :: gravity = 9.81_real64
  integer :: ranks, rank, nx, ny, steps, every, first, last, rows, step, i, j, south, north, unit, shot
  real(real64) :: dx, dt, crest_x, crest_y, width, started, seconds
  real(real32), allocatable :: map(:, :), whole(:, :)
  real(real64), allocatable :: depth(:, :), eta(:, :), u(:, :), v(:, :), highest(:, :), arrival(:, :)
  integer, allocatable :: counts(:), offsets(:)
  character(len=4096) :: depths_file, result_file
  type(MPI_Status) :: status

  call MPI_Init()
  call MPI_Comm_size(MPI_COMM_WORLD, ranks)
  call MPI_Comm_rank(MPI_COMM_WORLD, rank)

  ! tsunami DEPTHS RESULT NX NY DX DT STEPS EVERY CREST_X CREST_Y WIDTH: cells, metres and seconds.
  if (command_argument_count() /= 11) call stop_all('usage: tsunami DEPTHS RESULT NX NY DX DT STEPS EVERY X Y WIDTH')
  call get_command_argument(1, depths_file)
  call get_command_argument(2, result_file)
  nx = int(number(3)); ny = int(number(4)); dx = number(5); dt = number(6)
  steps = int(number(7)); every = int(number(8)); crest_x = number(9); crest_y = number(10); width = number(11)
  if (ranks > ny) call stop_all('more ranks than rows')

  allocate (map(nx, ny))
  open (newunit=unit, file=trim(depths_file), access='stream', form='unformatted', status='old', action='read')
  read (unit) map
  close (unit)

  allocate (counts(ranks), offsets(ranks))
  do i = 1, ranks
    offsets(i) = ny*(i - 1)/ranks
    counts(i) = ny*i/ranks - offsets(i)
  end do
  first = offsets(rank + 1) + 1
  rows = counts(rank + 1)
  last = first + rows - 1
  counts = counts*nx
  offsets = offsets*nx
  south = merge(rank - 1, MPI_PROC_NULL, rank > 0)
  north = merge(rank + 1, MPI_PROC_NULL, rank < ranks - 1)

  ! One row more on either side; beyond the map there is land.
  allocate (depth(nx, first - 1:last + 1), eta(nx, first - 1:last + 1), v(nx, first - 1:last + 1), source=0.0_real64)
  allocate (u(0:nx, first - 1:last + 1), highest(nx, first:last), source=0.0_real64)
  allocate (arrival(nx, first:last), source=-1.0_real64)
  do j = max(first - 1, 1), min(last + 1, ny)
    depth(:, j) = max(map(:, j), 0.0_real32)
    do i = 1, nx
      if (depth(i, j) > 0) eta(i, j) = exp(-((i - crest_x)**2 + (j - crest_y)**2)*(dx/width)**2)
    end do
  end do
  deallocate (map)
  allocate (whole(nx, merge(ny, 0, rank == 0)))
  if (rank == 0) open (newunit=unit, file=trim(result_file), access='stream', form='unformatted', status='replace')

  call MPI_Barrier(MPI_COMM_WORLD)
  started = MPI_Wtime()
  shot = 0
  do step = 0, steps
    if (mod(step, every) == 0) then
      call gather(eta(:, first:last))
      shot = shot + 1
    end if
    call exchange(eta)
    do j = first, last
      do i = 1, nx - 1
        if (depth(i, j) > 0 .and. depth(i + 1, j) > 0) u(i, j) = u(i, j) - dt*gravity*(eta(i + 1, j) - eta(i, j))/dx
      end do
      do i = 1, nx
        if (depth(i, j) > 0 .and. depth(i, j + 1) > 0) v(i, j) = v(i, j) - dt*gravity*(eta(i, j + 1) - eta(i, j))/dx
      end do
    end do
    call exchange(v)
    do j = first, last
      do i = 1, nx
        if (depth(i, j) <= 0) cycle
        eta(i, j) = eta(i, j) - dt/dx*(flux(depth(min(i + 1, nx), j), u(i, j)) - flux(depth(max(i - 1, 1), j), u(i - 1, j)) &
                                       + flux(depth(i, j + 1), v(i, j)) - flux(depth(i, j - 1), v(i, j - 1)))
        highest(i, j) = max(highest(i, j), eta(i, j))
        if (arrival(i, j) < 0 .and. abs(eta(i, j)) > 0.005_real64) arrival(i, j) = (step + 1)*dt
      end do
    end do
  end do
  seconds = MPI_Wtime() - started
  call gather(highest)
  call gather(arrival)
  if (rank == 0) then
    close (unit)
    print '(a, i0, a, i0, a, i0, a, i0, a, f0.3, a)', 'ranks=', ranks, ' cells=', nx*ny, ' steps=', steps, ' pictures=', shot, &
      ' seconds=', seconds
  end if
  call MPI_Finalize()

contains

  ! What flows through the side between this cell (of depth(i, j)) and its neighbour, per metre of it.
  real(real64) function flux(neighbour, speed)
    real(real64), intent(in) :: neighbour, speed
    flux = merge(0.5_real64*(depth(i, j) + neighbour)*speed, 0.0_real64, neighbour > 0)
  end function flux

  subroutine exchange(field)
    real(real64), intent(inout), contiguous :: field(:, :)
    integer :: n
    n = size(field, 2)
    call MPI_Sendrecv(field(:, n - 1), nx, MPI_DOUBLE_PRECISION, north, 0, &
                      field(:, 1), nx, MPI_DOUBLE_PRECISION, south, 0, MPI_COMM_WORLD, status)
    call MPI_Sendrecv(field(:, 2), nx, MPI_DOUBLE_PRECISION, south, 1, &
                      field(:, n), nx, MPI_DOUBLE_PRECISION, north, 1, MPI_COMM_WORLD, status)
  end subroutine exchange

  ! Bring a field to rank 0, which appends it to the result.
  subroutine gather(field)
    real(real64), intent(in) :: field(:, :)
    real(real32) :: mine(size(field, 1), size(field, 2))
    mine = real(field, real32)
    call MPI_Gatherv(mine, size(mine), MPI_REAL, whole, counts, offsets, MPI_REAL, 0, MPI_COMM_WORLD)
    if (rank == 0) write (unit) whole
  end subroutine gather

  real(real64) function number(position)
    integer, intent(in) :: position
    character(len=64) :: text
    integer :: wrong
    call get_command_argument(position, text)
    read (text, *, iostat=wrong) number
    if (wrong /= 0) call stop_all('not a number: '//trim(text))
  end function number

  subroutine stop_all(message)
    character(len=*), intent(in) :: message
    if (rank == 0) write (*, '(a)') 'tsunami: '//message
    call MPI_Abort(MPI_COMM_WORLD, 2)
  end subroutine stop_all
end program tsunami
