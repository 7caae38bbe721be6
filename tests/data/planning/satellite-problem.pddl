(define (problem strips-sat-1)
  (:domain satellite)
  (:objects satellite0 - satellite instrument0 instrument1 - instrument
    image1 spectrograph2 thermograph0 - mode
    star0 groundstation1 phenomenon3 star5 - direction)
  (:init (supports instrument0 thermograph0) (supports instrument1 image1)
    (calibration_target instrument0 groundstation1) (calibration_target instrument1 star0)
    (on_board instrument0 satellite0) (on_board instrument1 satellite0)
    (power_avail satellite0) (pointing satellite0 phenomenon3))
  (:goal (and (have_image phenomenon3 thermograph0) (have_image star5 image1))))
